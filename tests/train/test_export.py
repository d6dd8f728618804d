"""The workshop's networks: shapes, parity with ONNX, and a space that forgives misspelling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from export.detector import Detector  # noqa: E402
from export.fit import load_space, save_space  # noqa: E402
from export.lexical import (  # noqa: E402
    LexicalOptions,
    LexicalSpace,
    buckets,
    collapse,
    letters_of,
)
from export.reader import ALPHABET, Reader, ReaderOptions, encode_text, greedy_text  # noqa: E402
from export.to_onnx import build_bundle  # noqa: E402
from export.train import ctc, letter_errors  # noqa: E402
from livi_index.encoders import AudioEncoder, TextEncoder  # noqa: E402
from livi_index.models import open_bundle  # noqa: E402

pytestmark = pytest.mark.train
SMALL = ReaderOptions(width=32, heads=2, feed_forward=64, blocks=1)
LINES = [
    "the river runs beneath the bridge and carries all the leaves away",
    "a lantern in the window burns for sailors coming home at night",
    "we counted every summer star until the morning took them all",
    "the baker's boy has lost his hat and whistles down the market street",
]


@pytest.fixture
def space() -> LexicalSpace:
    made = LexicalSpace(LexicalOptions(features=512, dim=128))
    made.learn(LINES)
    return made.eval()


def noise(n: int, seconds: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return 0.1 * torch.randn(n, 16_000 * seconds, generator=generator)


def path_of(text: str) -> torch.Tensor:
    """Log-probabilities (1, T, 29) whose best path says ``text``, each letter for two frames."""
    letters = [0]
    for index in encode_text(text):
        letters += [index, index, 0]
    out = torch.full((1, len(letters), len(ALPHABET)), -9.0)
    out[0, torch.arange(len(letters)), torch.tensor(letters)] = 0.0
    return out


def test_fast_log_mel_equals_the_exported_one() -> None:
    mel = Reader(SMALL).log_mel
    samples = noise(2, 10)
    assert mel(samples).shape == (2, 80, 1000)
    assert torch.allclose(mel(samples), mel.fast(samples), atol=1e-3)


def test_log_mel_of_a_window_ignores_its_neighbours_and_its_level() -> None:
    mel = Reader(SMALL).log_mel
    quiet, loud = noise(1, 10) * 0.01, noise(1, 10) * 5
    together = mel(torch.cat([quiet, loud]))
    assert torch.allclose(together[:1], mel(quiet), atol=1e-5)
    assert torch.allclose(together[0], together[1], atol=1e-3)


def test_reader_gives_25_letter_distributions_a_second() -> None:
    output = Reader(SMALL).eval()(noise(1, 30))
    assert output.shape == (1, 750, len(ALPHABET))
    assert torch.allclose(output.exp().sum(dim=-1), torch.ones(1, 750), atol=1e-4)


def test_ctc_loss_is_small_only_for_what_is_said() -> None:
    path = path_of("hello there").log_softmax(-1)
    assert ctc(path, ["hello there"]) < 0.05 < ctc(path, ["good night"])


@pytest.mark.parametrize(
    ("said", "sung", "errors"), [("abc", "abc", 0), ("", "abc", 3), ("kitten", "sitting", 3)]
)
def test_letter_errors(said: str, sung: str, errors: int) -> None:
    assert letter_errors(said, sung) == errors


def test_collapse_agrees_with_the_greedy_text() -> None:
    path = path_of("all the leaves")
    letters = collapse(path)[0].tolist()
    assert "".join(ALPHABET[i] for i in letters if i) == greedy_text(path[0]) == "all the leaves"


def test_letter_groups_are_told_apart() -> None:
    one, other = (set(buckets(letters_of([t]))[0].tolist()) - {0} for t in ("at", "ta"))
    assert one and other and not one & other


def test_a_misspelt_line_stays_nearest_to_its_own(space: LexicalSpace) -> None:
    misspelt = [
        "the rivver runs benieth the brige and carys all the leevs away",
        "a lanten in the windo burns for salors comming home at nite",
        "we countid evry sumer star untill the mornin took them all",
        "the bakers boy has lost his hatt and wisles down the market streat",
    ]
    scores = space(letters_of(misspelt)) @ space(letters_of(LINES)).T
    assert scores.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert float(scores.detach().diagonal().min()) > 0.3


def test_padding_changes_nothing(space: LexicalSpace) -> None:
    alone = space(letters_of([LINES[0][:20]]))
    padded = space(letters_of([LINES[0][:20], LINES[1]]))
    assert torch.allclose(alone[0], padded[0], atol=1e-6)


def test_a_space_survives_its_file(space: LexicalSpace, tmp_path: Path) -> None:
    save_space(tmp_path / "space.pt", space)
    again = load_space(tmp_path / "space.pt")
    assert torch.equal(again(letters_of(LINES)), space(letters_of(LINES)))


# The exporter's own deprecations are not ours to mend.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_bundle_answers_in_the_product_as_in_torch(space: LexicalSpace, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader, detector, windows = Reader(SMALL).eval(), Detector().eval(), noise(2, 30)
    card = build_bundle(
        tmp_path, reader, space, detector, windows, {"name": "small", "version": "1"}
    )
    assert all(d < 2e-3 for p in card["measured"]["parity"].values() for d in p.values())
    bundle = open_bundle(tmp_path)
    text = TextEncoder(bundle).encode(LINES[:1])
    assert np.allclose(text, space(letters_of(LINES[:1])).detach().numpy(), atol=2e-3)
    vectors = AudioEncoder(bundle).encode(windows.numpy())
    assert vectors.shape == (2, 128)
    assert json.loads((tmp_path / "card.json").read_text())["model_id"] == bundle.card.model_id
