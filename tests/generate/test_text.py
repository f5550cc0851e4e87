"""Text that continues a prompt comes in whole characters, and is what the tokenizer says of all tokens."""

import json
from collections.abc import Callable, Iterable
from itertools import repeat
from pathlib import Path

import pytest
import torch

from registry import core
from registry.contracts import Tokenizer
from transformer_kit import load, load_tokenizer, save
from transformer_kit.generate import complete, generate
from transformer_kit.model.model import Model


@pytest.fixture
def tokenizer() -> Tokenizer:
    part = core.get("tokenizer", "bytes")
    made: Tokenizer = part(part.Options())
    return made


@pytest.fixture
def model(make: Callable[..., Model], tokenizer: Tokenizer) -> Model:
    return make(vocab_size=tokenizer.vocab_size + 3, max_seq_len=64)


def test_pieces_join_to_what_decode_says(model: Model, tokenizer: Tokenizer) -> None:
    prompt = "café: "
    settings = {"max_new_tokens": 40, "samplers": ["temperature"], "seed": 3}
    limits = {"vocab": tokenizer.vocab_size, "stop": [tokenizer.end_of_text]}
    (tokens,) = generate(model, [tokenizer.encode(prompt)], **settings, **limits)
    pieces = list(complete(model, tokenizer, prompt, **settings))
    assert len(pieces) > 5
    assert all(pieces)
    assert "".join(pieces) == tokenizer.decode(tokens)


def dictate(model: Model, tokens: Iterable[int]) -> None:
    """Make each of `tokens` in turn the likeliest."""
    coming = iter(tokens)
    model.register_forward_hook(lambda _, __, out: out._replace(logits=favor(out.logits, next(coming))))


def favor(logits: torch.Tensor, token: int) -> torch.Tensor:
    return logits.index_fill(-1, torch.tensor([token]), 1e4)


def test_a_character_of_several_tokens_comes_whole(model: Model, tokenizer: Tokenizer) -> None:
    dictate(model, "héé€".encode())
    assert list(complete(model, tokenizer, "x", max_new_tokens=8)) == ["h", "é", "é", "€"]


def test_a_character_that_is_never_finished_comes_at_the_end(model: Model, tokenizer: Tokenizer) -> None:
    dictate(model, "h€".encode()[:3])
    assert list(complete(model, tokenizer, "x", max_new_tokens=3)) == ["h", "\ufffd"]


def test_the_end_of_text_ends_it(model: Model, tokenizer: Tokenizer) -> None:
    assert tokenizer.end_of_text is not None
    dictate(model, [ord("a"), tokenizer.end_of_text])
    assert list(complete(model, tokenizer, "x", max_new_tokens=8)) == ["a"]


def test_ids_that_the_tokenizer_does_not_know_are_not_chosen(model: Model, tokenizer: Tokenizer) -> None:
    dictate(model, repeat(tokenizer.vocab_size))
    assert "".join(complete(model, tokenizer, "x", max_new_tokens=4))


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(make: Callable[..., Model], tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"ids, more than the model's vocab_size \(40\)"):
        complete(make(), tokenizer, "x", max_new_tokens=4)


def test_an_empty_prompt_is_refused(model: Model, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="the prompt is empty"):
        complete(model, tokenizer, "", max_new_tokens=4)


def test_generate_text_takes_the_tokenizer_of_the_folder(model: Model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no tokenizer; give `tokenizer`"):
        model.generate_text("the ")
    text = model.generate_text("the ", tokenizer, max_new_tokens=9)
    save(model, tmp_path / "saved", tokenizer)
    loaded = load(tmp_path / "saved")
    assert loaded.generate_text("the ", max_new_tokens=9) == text != ""
    assert load_tokenizer(str(tmp_path / "saved")).decode(tokenizer.encode("the ")) == "the "


def test_generate_text_heeds_the_folders_settings(model: Model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(model, tmp_path / "saved", tokenizer)
    config = {"max_new_tokens": 3, "do_sample": True, "temperature": 0.9, "top_k": 0}
    (tmp_path / "saved" / "generation_config.json").write_text(json.dumps(config))
    loaded = load(tmp_path / "saved")
    expected = {"max_new_tokens": 3, "samplers": [{"type": "temperature", "value": 0.9}]}
    assert loaded.generate_text("x", seed=5) == model.generate_text("x", tokenizer, seed=5, **expected)
    assert loaded.generate_text("x", samplers=["greedy"]) == model.generate_text("x", tokenizer, max_new_tokens=3)


def test_text_is_sampled_by_keywords_too(model: Model, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(model, tmp_path / "model", tokenizer)
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"do_sample": True, "top_k": 3}))
    loaded = load(tmp_path / "model")
    listed = loaded.generate_text("x", samplers=[{"type": "temperature", "value": 2.0}], seed=1, max_new_tokens=30)
    assert loaded.generate_text("x", temperature=2.0, seed=1, max_new_tokens=30) == listed
    assert loaded.generate_text("x", seed=1, max_new_tokens=30) != listed
    assert loaded.generate_text("x", temperature=None, seed=1, max_new_tokens=30) != listed
    likeliest = loaded.generate_text("x", samplers=[], max_new_tokens=30)
    assert loaded.generate_text("x", temperature=0, max_new_tokens=30) == likeliest
    with pytest.raises(TypeError, match="generation has no setting 'do_sample'; did you mean 'samplers'"):
        loaded.generate_text("x", do_sample=True)
    with pytest.raises(ValueError, match="give `samplers` or temperature, not both"):
        loaded.generate_text("x", samplers=["greedy"], temperature=1.0)
