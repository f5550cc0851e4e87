"""Counting one layer of each sort, one piece of the loss and each shape once gives what counting everything gives."""

from collections.abc import Callable
from typing import Any

import pytest

from transformer_kit.cost import plan, shapes
from transformer_kit.cost.card import card
from transformer_kit.model import model
from transformer_kit.model.build import assemble, assemble_distinct
from transformer_kit.spec.schema import Spec

Page = Callable[..., Spec]
EXPERTS = {
    "type": "moe",
    "n_experts": 8,
    "router": {"type": "sigmoid", "top_k": 2, "bias_correction": True},
    "expert": {"type": "gated", "d_ff": 64},
}
CASES: dict[str, dict[str, Any]] = {
    "all alike": {},
    "kinds": {"layers": {"kinds": {"local": {"mixer": {"window": 16}}}, "pattern": ["local", "block*3"]}},
    "mixtures": {"layers": {"at": {0: {"ffn": EXPERTS}, 2: {"ffn": EXPERTS}}}, "head": "lm"},
    "told apart by depth": {"mixer": {"scores": {"scale_by_inverse_layer_idx": True}}},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_the_same_card(page: Page, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    spec = page(**changes)
    monkeypatch.setattr(model, "chunk_size", lambda vocab, tokens: 10)  # the loss of 10 tokens at a time
    quick = card(spec, optimizer="adamw").data()
    monkeypatch.setattr(plan, "_assembled", lambda page: (assemble(page), None))
    monkeypatch.setattr(shapes, "_key", lambda value: None)
    assert card(spec, optimizer="adamw").data() == quick


def test_layers_that_ask_where_they_stand_are_built_each(page: Page) -> None:
    assert assemble_distinct(page(**CASES["told apart by depth"]))[1] == [[0], [1], [2], [3]]
    assert assemble_distinct(page(**CASES["kinds"]))[1] == [[0], [1, 2, 3]]
