"""A mixture on the card: its experts are one row, as many as there are, with the shapes and the parameters of one."""

from typing import Any

import pytest

from transformer_kit.cost.card import card
from transformer_kit.cost.tree import Node
from transformer_kit.spec.schema import Spec


def row(expert: dict[str, Any]) -> Node:
    ffn = {"type": "moe", "n_experts": 6, "router": {"type": "softmax", "top_k": 2}, "expert": expert}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": ffn}
    sizes = {"vocab_size": 11, "d_model": 8, "max_seq_len": 8, "layers": {"count": 2, "block": block}}
    layer = next(node for node in card(Spec.of({"model": sizes})).parts if node.label == "layers 0, 1")
    mixture = next(node for node in layer.children if node.label == "ffn")
    return next(node for node in mixture.children if node.label.startswith("experts"))


@pytest.mark.parametrize("norm", ["none", "rms_norm"])
def test_experts_are_one_row(norm: str) -> None:
    """With a norm they are modules of their own."""
    node = row({"type": "gated", "d_ff": 16, "norm": norm})
    assert (node.part, node.count, node.parameters) == ("gated", 6, 3 * 8 * 16 + (16 if norm != "none" else 0))
    assert node.shapes == {"gate": (16, 8), "up": (16, 8), "down": (8, 16)}
