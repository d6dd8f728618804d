"""Models of a few thousand random weights, saved as transformers and Sentence-Transformers do."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|fr|>", "<|translate|>",
           "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>",
           "<|notimestamps|>")  # fmt: skip
N_TIMES = 1501  # every 20 ms of a window


def save_whisper(folder: Path, *, n_mels: int = 80, seed: int = 0) -> Path:
    """A multilingual Whisper of one layer; its words are single bytes."""
    torch.manual_seed(seed)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *SPECIAL, *(f"<|{0.02 * i:.2f}|>" for i in range(N_TIMES))]
    vocab = {name: i for i, name in enumerate(names)}
    tokenizer = WhisperTokenizer(vocab={name: vocab[name] for name in letters}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL]})
    tokenizer.add_tokens(names[len(letters) + len(SPECIAL) :])
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer), num_mel_bins=n_mels, d_model=16, encoder_layers=1,
            decoder_layers=1, encoder_attention_heads=1, decoder_attention_heads=1,
            encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=16,
            pad_token_id=ids[SPECIAL[0]], bos_token_id=ids[SPECIAL[0]],
            eos_token_id=ids[SPECIAL[0]], decoder_start_token_id=ids[SPECIAL[1]],
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(
        max_length=16,
        pad_token_id=ids[SPECIAL[0]],
        bos_token_id=ids[SPECIAL[0]],
        eos_token_id=ids[SPECIAL[0]],
        decoder_start_token_id=ids[SPECIAL[1]],
        is_multilingual=True,
        lang_to_id={name: ids[name] for name in ("<|en|>", "<|fr|>")},
        task_to_id={"translate": ids["<|translate|>"], "transcribe": ids["<|transcribe|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        return_timestamps=True,
        max_initial_timestamp_index=50,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=n_mels).save_pretrained(folder)
    return folder


WORDS = "[PAD] [UNK] [CLS] [SEP] the river runs beneath a lantern in window and sings".split()


def save_sentences(folder: Path, *, pooling: str = "mean_tokens", dense: int = 0) -> Path:
    """A BERT of two layers with the files that say how it is pooled; ``dense`` outputs behind."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
    tokenizer.save_pretrained(folder)
    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    paths = ["", "1_Pooling", *(["2_Dense"] if dense else []), f"{len(kinds) - 1}_Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    for path in paths[1:]:
        (folder / path).mkdir()
    others = dict.fromkeys((f"pooling_mode_{n}" for n in ("cls_token", "mean_tokens")), False)
    options = {"word_embedding_dimension": 16, **others, f"pooling_mode_{pooling}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(options))
    if dense:
        _save_dense(folder / "2_Dense", dense)
    return folder


def _save_dense(folder: Path, size: int) -> None:
    from safetensors.torch import save_file

    layer = torch.nn.Linear(16, size)
    options = {"in_features": 16, "out_features": size, "bias": True,
               "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(options))
    save_file(
        {f"linear.{k}": v for k, v in layer.state_dict().items()}, folder / "model.safetensors"
    )
