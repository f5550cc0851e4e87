"""Transforms come in one order; building and loading go through it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from transformer_kit import build, load, save
from transformer_kit.model.build import assemble
from transformer_kit.model.model import Model
from transformer_kit.spec.read import read
from transformer_kit.transform import pipeline
from transformer_kit.transform.materialize import fill, materialize
from transformer_kit.transform.pipeline import ORDER, transformed


def test_transforms_come_in_their_order_whatever_the_order_of_the_call() -> None:
    done: list[str] = []

    def noting(name: str) -> Any:
        return lambda model: done.append(name) or model

    model = build("tutorial", device="meta")
    assert transformed(model, **{name: noting(name) for name in reversed(ORDER)}) is model
    assert done == list(ORDER)


def test_each_transform_gets_what_the_one_before_returned() -> None:
    first, second = build("tutorial", device="meta"), build("tutorial", device="meta")
    seen: list[Model] = []
    transformed(first, freeze=lambda model: second, compile=lambda model: seen.append(model) or model, fill=None)
    assert seen == [second]


def test_a_transform_that_the_order_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match=r"transforms must be among freeze, .*, got 'polish'"):
        transformed(build("tutorial", device="meta"), polish=lambda model: model)


@pytest.mark.parametrize("way", ["build", "load"])
def test_models_are_made_by_the_pipeline(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(build("tutorial"), tmp_path / "model")
    monkeypatch.setattr(pipeline, "ORDER", ())
    with pytest.raises(ValueError, match="transforms must be among"):
        build("tutorial") if way == "build" else load(folder)


def test_a_model_on_the_meta_device_gets_memory_and_the_weights_of_its_seed() -> None:
    model = assemble(read("tutorial"))
    made = transformed(model, fill=partial(fill, seed=3), materialize=partial(materialize, device="cpu"))
    expected = build("tutorial", seed=3).state_dict()
    assert all((tensor == expected[name]).all() for name, tensor in made.state_dict().items())
