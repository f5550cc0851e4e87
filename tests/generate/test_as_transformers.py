"""A Hugging Face folder is continued as transformers continues it: the same ids from the same text, and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data import zoo
from transformer_kit import load, load_tokenizer
from transformer_kit.convert.importing import import_folder

transformers = pytest.importorskip("transformers")

PROMPTS = [
    "the cat",
    "",
    "  a cat <s> sat</s> on ",
    "Grüße 🦜\n",
    "<|im_start|>user\nhi<|im_end|>\n<think>",
    "[MASK] <mask> it",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny Llama with a tokenizer of some kind; `generation` and `config` add to its files."""

    def made(kind: str, generation: dict[str, Any] | None = None, **config: Any) -> Path:
        path = zoo.write(kind, tmp_path_factory.mktemp(kind))
        size = load_tokenizer(path).vocab_size + 8
        ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
        shape = transformers.LlamaConfig(
            vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, **{**ids, **config},
        )  # fmt: skip
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(shape)
        for parameter in model.parameters():
            parameter.data.mul_(4 if parameter.ndim > 1 else 1)
        model.save_pretrained(path)
        (path / "generation_config.json").unlink(missing_ok=True)
        if generation is not None:
            (path / "generation_config.json").write_text(json.dumps(generation))
        return path

    return made


def theirs(tokenizer: Any, model: Any, prompt: str, count: int = 12) -> tuple[list[int], str]:
    """Greedily, up to an end: the new ids without it, and the text beyond the prompt."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    ends = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    limit = len(tokenizer)  # rows of the table beyond the tokenizer are never chosen
    with torch.no_grad():
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            suppress_tokens=[*range(limit, model.config.vocab_size)],
            eos_token_id=[*ends] or None,
            pad_token_id=0,
        )[0].tolist()
    new = whole[ids.shape[1] :]
    new = new[:-1] if new and new[-1] in ends else new
    text = tokenizer.decode([*ids[0].tolist(), *new], skip_special_tokens=True)
    return new, text[len(tokenizer.decode(ids[0], skip_special_tokens=True)) :]


@pytest.mark.parametrize("kind", ["gpt2", "llama2", "llama3", "bert", "t5", "added"])
def test_the_same_text_is_continued_alike(folder: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    path = folder(kind)
    import_folder(path, tmp_path / "kit")
    model, tokenizer, unmoved = load(tmp_path / "kit"), load_tokenizer(tmp_path / "kit"), load(path)
    other = transformers.AutoTokenizer.from_pretrained(path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    compared = 0
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt)
        if not ids:
            continue
        new, text = theirs(other, reference, prompt)
        (ours,) = model.generate([ids], max_new_tokens=12, stop=tokenizer.ends, vocab=tokenizer.vocab_size)
        assert ours == new, prompt
        assert model.generate_text(prompt, max_new_tokens=12) == text, prompt
        assert unmoved.generate_text(prompt, max_new_tokens=12) == text, prompt
        compared += 1
    assert compared >= 4


@pytest.mark.parametrize("kind", zoo.KINDS)
def test_the_same_ids_for_the_same_text(kind: str, tmp_path: Path) -> None:
    path = zoo.write(kind, tmp_path)
    ours, auto = load_tokenizer(path), transformers.AutoTokenizer.from_pretrained(path)
    split = transformers.AutoTokenizer.from_pretrained(path, split_special_tokens=True)
    for text in zoo.TEXTS:
        ids = auto(text).input_ids
        assert ours.encode(text) == ids
        assert ours.encode(text, add_special_tokens=False) == auto(text, add_special_tokens=False).input_ids
        assert ours.encode(text, split_special_tokens=True) == split(text).input_ids
        assert ours.decode(ids) == auto.decode(ids, skip_special_tokens=True)


FLAGS = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}


@pytest.mark.parametrize(
    "said",
    [
        {"eos_token": {"__type": "AddedToken", "content": "it", **FLAGS}},
        {"bos_token": "at", "additional_special_tokens": ["it"]},
        {"extra_special_tokens": ["it", "at"]},
        {"added_tokens_decoder": {"359": {"content": "<think>", **FLAGS, "lstrip": True}}},
        {"add_bos_token": True, "bos_token": "<|endoftext|>"},
        {"eos_token": "<think>"},
        {"split_special_tokens": True},
    ],
)
def test_tokens_that_only_the_files_beside_name(said: dict[str, Any], tmp_path: Path) -> None:
    path = zoo.write("gpt2", tmp_path)
    page = json.loads((path / "tokenizer_config.json").read_text()) | said
    vocabulary = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    assert {"at", "it"} <= set(vocabulary)
    (path / "tokenizer_config.json").write_text(json.dumps(page))
    ours, auto = load_tokenizer(path), transformers.AutoTokenizer.from_pretrained(path)
    ours.save(tmp_path)
    for text in (*zoo.TEXTS, "it at the <think> it<|endoftext|>"):
        assert ours.encode(text) == load_tokenizer(tmp_path).encode(text) == auto(text).input_ids
    assert ours.end_of_text == auto.eos_token_id
