"""What Python users give by mistake where a model is built, loaded or saved: one error of the kit's in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from transformer_kit import Model, SpecError, build, load, read, save
from transformer_kit.cost.card import card
from transformer_kit.spec.schema import ModelSpec, RunSpec, Spec

BLOCK = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp"}
SIZES = {"vocab_size": 7, "d_model": 8, "max_seq_len": 4}
MODEL: dict[str, Any] = {**SIZES, "layers": {"count": 1, "block": BLOCK}}


@pytest.fixture(scope="module")
def model() -> Model:
    return build(MODEL)


def test_build_takes_a_mapping_as_it_takes_a_page(model: Model) -> None:
    expected = Spec.of({"model": MODEL})
    for spec in (MODEL, {"model": MODEL}, {"kit": 1, "model": MODEL}, ModelSpec(**MODEL), expected):
        assert build(spec, device="meta").spec == expected
    assert [torch.equal(a, b) for a, b in zip(build(MODEL).parameters(), model.parameters(), strict=True)]
    page = {"extends": "tutorial", "model": {"d_model": 64, "layers": {"count": 2}}}
    assert build(page, device="meta").spec.model.d_model == 64
    assert build({"model": "tutorial"}, device="meta").spec.model == read("tutorial").model
    run = {"model": MODEL, "optimizer": {"type": "adamw", "lr": 0.1}, "train": {"steps": 3}}
    assert isinstance(read(run), RunSpec)
    assert read(run, sets=["train.steps=5"]).train.steps == 5  # type: ignore[attr-defined]
    assert card(MODEL).parameters == card(expected).parameters


def test_a_wrong_mapping_has_the_errors_of_a_wrong_page() -> None:
    wrong = {"model": {**MODEL, "d_modle": 3, "norm": "rmsnorm"}}
    with pytest.raises(SpecError) as caught:
        build(wrong)
    assert str(caught.value).splitlines() == [
        "spec: model.norm: no norm 'rmsnorm'; did you mean 'rms_norm'?",
        "spec: model.d_modle: no key 'd_modle' here; did you mean 'd_model'?",
    ]


WRONG: dict[str, tuple[Callable[[Model, Path], object], str]] = {
    "build nothing": (lambda m, p: build(None), "spec: must be a file, the name of a spec of the kit, a mapping or"),
    "build a number": (lambda m, p: build(3), "got 3"),
    "build an empty mapping": (lambda m, p: build({}), "spec: needs 'model': the architecture"),
    "read nothing": (lambda m, p: read(None), "spec: must be a file"),
    "read with one set": (lambda m, p: read("tutorial", sets="model.d_model=3"), r"sets: must be a list such as \["),
    "a dtype of integers": (lambda m, p: build(MODEL, dtype=torch.int8), "dtype must be one of float32, bfloat16"),
    "a dtype by a wrong name": (lambda m, p: build(MODEL, dtype="fp16"), "got 'fp16'"),
    "no such device": (lambda m, p: build(MODEL, device="gpu"), "device must be one that is there, .* got 'gpu'"),
    "a seed of letters": (lambda m, p: build(MODEL, seed="a"), "seed must be a whole number, at least 0, got 'a'"),
    "no such kernel": (lambda m, p: build(MODEL, kernel="flash"), "kernel: no kernel 'flash'; did you mean 'sdpa'?"),
    "a kernel that is none": (lambda m, p: build(MODEL, kernel=3), "kernel: must be the name of a kernel"),
    "load nothing": (lambda m, p: load(None), "folder must be a path, got NoneType"),
    "load with a wrong dtype": (lambda m, p: load(p, dtype="x"), "dtype must be one of"),
    "save what is no model": (lambda m, p: save(nn.Linear(2, 2), p), "save takes a model, .* got Linear first"),
    "save weights": (lambda m, p: save(m.state_dict(), p), "got OrderedDict first"),
    "save the wrong way round": (lambda m, p: save(p, m), "save takes a model, then a folder"),
    "save nowhere": (lambda m, p: save(m, None), "folder must be a path, got NoneType"),
    "save a tokenizer's name": (lambda m, p: save(m, p, "bytes"), "tokenizer must be a tokenizer, got 'bytes'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused_is_said_in_words(model: Model, tmp_path: Path, name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        call(model, tmp_path / "out")
    assert type(caught.value).__module__.partition(".")[0] in ("builtins", "transformer_kit")
    assert not list(tmp_path.iterdir())


def test_types_may_be_named() -> None:
    assert build(MODEL, dtype="bfloat16").embedding.weight.dtype == torch.bfloat16
