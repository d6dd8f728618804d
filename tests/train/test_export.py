"""The workshop's networks: shapes, parity with ONNX, and a space that forgives misspelling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from export.detector import Detector  # noqa: E402
from export.fit import load_space, save_space  # noqa: E402
from export.lexical import (  # noqa: E402
    LexicalOptions,
    LexicalSpace,
    buckets,
    collapse,
    letters_of,
    padded,
)
from export.phones import PHONES, UNKNOWN, phone_number  # noqa: E402
from export.reader import DOUBT, GUESSES, Frames, Reader, ReaderOptions, greedy_phones  # noqa: E402
from export.restart import reader_of_bundle  # noqa: E402
from export.shades import Shades  # noqa: E402
from export.to_onnx import build_bundle, on_par  # noqa: E402
from export.train import ctc, edit_distance, moment_loss, sequence  # noqa: E402
from livi_index.alignment import read_scoring  # noqa: E402
from livi_index.encoders import AudioEncoder, TextEncoder  # noqa: E402
from livi_index.models import open_bundle  # noqa: E402
from livi_index.profiles import read_profiles  # noqa: E402

pytestmark = pytest.mark.train
READS = Path(__file__).parent.parent / "data" / "tiny-reader"
SMALL = ReaderOptions(
    width=32, heads=2, feed_forward=64, rotated=8, blocks=2, fine_blocks=1, moments_after=1
)
LINES = [
    "the river runs beneath the bridge and carries all the leaves away",
    "a lantern in the window burns for sailors coming home at night",
    "we counted every summer star until the morning took them all",
    "the baker's boy has lost his hat and whistles down the market street",
]
SAID = [PHONES.index(p) for p in "dh ah r ih v er r ah n z b ih n iy th".split()]


@pytest.fixture
def space() -> LexicalSpace:
    made = LexicalSpace(LexicalOptions(phone_features=256, letter_features=512, dim=128))
    made.text.learn(letters_of(LINES))
    made.sound.learn(torch.tensor([SAID, SAID[::-1]]))
    generator = torch.Generator().manual_seed(1)
    for bag in (made.sound, made.text):  # a random projection keeps cosines
        torch.nn.init.normal_(bag.projection.data[1:], generator=generator)
    return made.eval()


def noise(n: int, seconds: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return 0.1 * torch.randn(n, 16_000 * seconds, generator=generator)


def path_of(said: list[int]) -> torch.Tensor:
    """Log-probabilities (1, T, 40) whose best path says these phones, each for two frames."""
    path = [0]
    for phone in said:
        path += [phone, phone, 0]
    out = torch.full((1, len(path), len(PHONES)), -9.0)
    out[0, torch.arange(len(path)), torch.tensor(path)] = 0.0
    return out.log_softmax(dim=-1)


def test_reader_gives_416_phone_distributions_in_ten_seconds() -> None:
    output = Reader(SMALL).eval()(noise(1, 30))
    assert output.shape == (1, 3 * GUESSES, len(PHONES))
    assert torch.allclose(output.exp().sum(dim=-1), torch.ones(1, 3 * GUESSES), atol=1e-4)


def test_frames_are_a_convolution() -> None:
    frames = Frames(3, 5, 7, 3, bias=True)
    x = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(4))
    kernel = frames.product.weight.reshape(5, 7, 3).permute(0, 2, 1)
    expected = F.conv1d(x.transpose(1, 2), kernel, frames.product.bias, stride=3)
    assert torch.allclose(frames(x).transpose(1, 2), expected, atol=1e-5)


def test_a_reader_hears_the_same_at_any_place_of_a_batch() -> None:
    reader, clips = Reader(SMALL).eval(), noise(3, 10)
    assert torch.allclose(reader(clips)[2:], reader(clips[2:]), atol=1e-5)


def test_ctc_loss_is_small_only_for_what_is_said() -> None:
    path, moments = path_of(SAID), torch.tensor([[0, *SAID, 0]])
    assert ctc(path, moments) < 0.05
    assert ctc(path, moments.flip(1)) > 1.0


def test_phones_that_are_not_known_teach_nothing() -> None:
    logits = torch.randn(1, 4, len(PHONES))
    some, none = torch.tensor([[3, UNKNOWN, 5, UNKNOWN]]), torch.tensor([[3, 7, 5, 9]])
    assert sequence(some[0]) == [3, 5]
    assert torch.isclose(moment_loss(logits, some), moment_loss(logits[:, ::2], none[:, ::2]))


@pytest.mark.parametrize(("name", "phone"), [("ɑːɹ", "aa"), ("aa", "aa"), ("tʃ", "ch"), ("n", "n")])
def test_phones_of_all_engines_are_one_set(name: str, phone: str) -> None:
    assert PHONES[phone_number(name)] == phone


@pytest.mark.parametrize(
    ("said", "sung", "errors"), [("abc", "abc", 0), ("", "abc", 3), ("kitten", "sitting", 3)]
)
def test_edit_distance(said: str, sung: str, errors: int) -> None:
    assert edit_distance(list(map(ord, said)), list(map(ord, sung))) == errors


def test_collapse_agrees_with_the_greedy_path() -> None:
    path = path_of(SAID)
    assert (
        [i for i in collapse(path.argmax(dim=-1))[0].tolist() if i]
        == greedy_phones(path[0])
        == SAID
    )


def test_what_is_heard_in_another_order_is_another_vector(space: LexicalSpace) -> None:
    heard = space.sound(padded([SAID, SAID[::-1]])).detach()
    assert float(heard[0] @ heard[1]) < 0.9
    assert torch.allclose(heard.norm(dim=1), torch.ones(2), atol=1e-5)


def test_letter_groups_are_told_apart() -> None:
    one, other = (
        set(buckets(letters_of([t]), LexicalOptions().text)[0].tolist()) - {0} for t in ("at", "ta")
    )
    assert one and other and one != other


def test_a_misspelt_line_stays_nearest_to_its_own(space: LexicalSpace) -> None:
    misspelt = [
        "the rivver runs benieth the brige and carys all the leevs away",
        "a lanten in the windo burns for salors comming home at nite",
        "we countid evry sumer star untill the mornin took them all",
        "the bakers boy has lost his hatt and wisles down the market streat",
    ]
    scores = space.text(letters_of(misspelt)) @ space.text(letters_of(LINES)).T
    assert scores.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert float(scores.detach().diagonal().min()) > 0.3


def test_padding_changes_nothing(space: LexicalSpace) -> None:
    alone = space.text(letters_of([LINES[0][:20]]))
    padded = space.text(letters_of([LINES[0][:20], LINES[1]]))
    assert torch.allclose(alone[0], padded[0], atol=1e-6)


def test_a_space_survives_its_file(space: LexicalSpace, tmp_path: Path) -> None:
    save_space(tmp_path / "space.pt", space)
    again = load_space(tmp_path / "space.pt")
    assert torch.equal(again.text(letters_of(LINES)), space.text(letters_of(LINES)))


# The exporter's own deprecations are not ours to mend.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_bundle_answers_in_the_product_as_in_torch(space: LexicalSpace, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reader, detector, windows = Reader(SMALL).eval(), Detector().eval(), noise(2, 30)
    for weight in reader.parameters():  # as after training: equal tensors would share a name
        weight.data += 0.02 * torch.randn(weight.shape)
    alignment = json.loads((READS / "alignment.json").read_text())
    written = {"name": "small", "version": "1"}
    shades = Shades()
    with torch.no_grad():
        shades.learn(reader(windows).flatten(0, 1))
    by = {"shares": shades.shares.tolist(), "gap": 1.0, "shift": 0.3, "chance": [0.0, 0.0]}
    card = build_bundle(
        tmp_path, reader, space, detector, windows, shades, alignment | {"profiles": by}, written
    )
    assert on_par(card["measured"]["parity"])
    bundle = open_bundle(tmp_path)
    text = TextEncoder(bundle).encode(LINES[:1])
    assert np.allclose(text, space.text(letters_of(LINES[:1])).detach().numpy(), atol=2e-3)
    read = AudioEncoder(bundle).read(windows.numpy())
    assert read.vectors.shape == (2, 128)
    assert read.guesses is not None and read.guesses.shape == (2, 3, GUESSES)
    clips = bundle.card.space("lyrics").clips
    assert clips is not None and read_scoring(bundle, clips.alignment).gap == alignment["gap"]
    with torch.no_grad():
        expected = shades(reader(windows)).reshape(read.guesses.shape).numpy()
    assert (read.guesses % DOUBT == expected % DOUBT).mean() > 0.9
    same = (read.guesses % DOUBT == expected % DOUBT) & (expected > 0)
    assert (read.guesses // DOUBT == expected // DOUBT)[same].mean() > 0.8
    told = read_profiles(bundle, clips)
    assert told is not None
    np.testing.assert_allclose(told.likely[:40], shades.likely.numpy(), atol=0.03)
    assert json.loads((tmp_path / "card.json").read_text())["model_id"] == bundle.card.model_id
    again = reader_of_bundle(tmp_path, SMALL).eval()
    # products come back from 8 bits
    assert torch.allclose(again(windows), reader(windows), atol=0.1)
