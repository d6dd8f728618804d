"""Text encoders: pooling against plain torch, the files of a model, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from tiny_models import WORDS, save_sentences
from transformers import AutoModel, GteConfig, GteModel

from export.fit import save_space
from export.hub import Found, quiet
from export.lexical import LexicalOptions, LexicalSpace, letters_of
from export.teacher import Told, vectors_of
from export.text_encoders import SentenceEncoder, open_space, t_global, t_local
from livi_index.errors import BadInput, BadModel

pytestmark = pytest.mark.train
BUNDLE = Path(__file__).parent.parent / "data" / "tiny-bundle"
TEXTS = ["the river runs", "a lantern in the window sings and sings", "beneath"]


@torch.no_grad()
def states(folder: Path, text: str) -> torch.Tensor:
    """(T, C) of the words of one text between [CLS] and [SEP], as BERT has them."""
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids = [WORDS.index(word) for word in ["[CLS]", *text.split(), "[SEP]"]]
    found: torch.Tensor = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return found


@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_pooling_is_what_the_model_says(tmp_path: Path, pooling: str) -> None:
    quiet()
    folder = save_sentences(tmp_path / "model", pooling=pooling)
    encoder = open_space(str(folder))
    vectors = encoder.encode(TEXTS)
    assert encoder.dim == 16 and encoder.name == "model"
    for vector, text in zip(vectors, TEXTS, strict=True):
        rows = states(folder, text)
        pooled = rows[0] if pooling == "cls_token" else rows.mean(dim=0)
        assert np.allclose(vector, (pooled / pooled.norm()).numpy(), atol=1e-5)
        assert np.allclose(encoder.encode([text])[0], vector, atol=1e-5)


def test_layers_behind_the_pooling(tmp_path: Path) -> None:
    quiet()
    folder = save_sentences(tmp_path / "model", dense=5)
    weights = SentenceEncoder(Found(folder, "m")).encode(TEXTS)
    assert weights.shape == (3, 5) and np.allclose(np.linalg.norm(weights, axis=1), 1)
    (folder / "2_Dense" / "config.json").unlink()
    with pytest.raises(BadModel, match="is the model whole"):
        SentenceEncoder(Found(folder, "m"))


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    quiet()
    folder = save_sentences(tmp_path / "model")
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode": "weightedmean"}))
    with pytest.raises(BadModel, match="weightedmean"):
        SentenceEncoder(Found(folder, "m"))
    config = folder / "config.json"
    own = {"model_type": "new", "auto_map": {"AutoConfig": "code.NewConfig"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | own))
    with pytest.raises(BadModel, match="gte-multilingual-base needs no code of its own"):
        SentenceEncoder(Found(folder, "m"))


def test_gte_is_read_without_its_own_code_and_pooled_by_its_first_token(tmp_path: Path) -> None:
    quiet()
    folder = save_sentences(tmp_path / "model")
    (folder / "modules.json").unlink()
    config = GteConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, pad_token_id=0, max_position_embeddings=64,
    )  # fmt: skip
    GteModel(config).save_pretrained(folder)
    encoder = SentenceEncoder(Found(folder, "gte"))
    first = states(folder, TEXTS[0])[0]
    assert np.allclose(encoder.encode(TEXTS)[0], (first / first.norm()).numpy(), atol=1e-5)


def test_spaces_of_words(tmp_path: Path) -> None:
    space = LexicalSpace(LexicalOptions(phone_features=64, letter_features=64, dim=16))
    space.text.learn(letters_of(TEXTS))
    torch.nn.init.normal_(space.text.projection.data[1:])
    save_space(tmp_path / "space.pt", space)
    lexical = open_space(str(tmp_path / "space.pt"))
    assert np.allclose(lexical.encode(["The RIVER runs!"]), lexical.encode(TEXTS[:1]))
    with pytest.raises(BadInput, match="nothing that this space knows"):
        lexical.encode(["...?"])
    bundle = open_space(str(BUNDLE))
    assert bundle.encode(TEXTS).shape == (3, bundle.dim)


def test_vectors_of_recordings_as_the_paper_has_them() -> None:
    space = open_space(str(BUNDLE))
    parts = [Told("a", 30.0 * i, 30.0, text, None, "transcript", "w", text, 1.0)
             for i, text in enumerate(TEXTS)]  # fmt: skip
    lost = Told("b", 0.0, 30.0, "", "no words", "transcript", "w", "Thank you.", 1.0)
    told = {"a": parts, "b": [lost]}
    names, (whole,) = vectors_of(told, space, "global")
    assert names == ["a"] and np.allclose(whole, space.encode(["\n\n".join(TEXTS)]))
    (mean,) = vectors_of(told, space, "local")[1]
    assert np.allclose(mean, sum(space.encode([text])[0] for text in TEXTS) / 3)
    assert np.allclose(mean, t_local(space, TEXTS)) and np.linalg.norm(mean) < 1
    assert np.allclose(whole, t_global(space, TEXTS))
