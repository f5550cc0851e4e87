"""Mixers take the number of heads from their weights, so that each of two devices can have half of them."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from registry.context import Context
from transformer_kit import Spec, build

MLA = {"kv_lora_rank": 16, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5}
CASES: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"type": "attention", "n_heads": 4, "n_kv_heads": 2}, {"q": 4, "k": 2, "v": 2}),
    (
        {
            "type": "attention",
            "n_heads": 4,
            "qk_norm": "rms_norm",
            "query_scaling": {"type": "llama4", "beta": 1.0, "length": 2},
        },
        {"q": 4, "k": 4, "v": 4},
    ),
    (
        {"type": "attention", "n_heads": 4, "output_gate": "headwise"},
        {"q": 4, "k": 4, "v": 4, "output_gate.projection": 4},
    ),
    (
        {"type": "attention", "n_heads": 4, "output_gate": "elementwise"},
        {"q": 4, "k": 4, "v": 4, "output_gate.projection": 4},
    ),
    ({"type": "mla", "n_heads": 4, **MLA}, {"q_up": 4, "k_up": 4, "v_up": 4}),
]


@pytest.mark.parametrize("position", ["rope", "none"])
@pytest.mark.parametrize(("options", "split"), CASES, ids=[str(options) for options, _ in CASES])
@torch.no_grad()
def test_two_halves_add_up(options: dict[str, Any], split: dict[str, int], position: str) -> None:
    block = {"type": "pre_norm", "mixer": options, "ffn": "mlp"}
    page = {"vocab_size": 9, "d_model": 32, "max_seq_len": 16, "position": position}
    model = build(Spec.of({"model": {**page, "layers": {"count": 1, "block": block}}}), dtype="float64").eval()
    mixer, x = model.blocks()[0].mixer, torch.randn(2, 5, 32, dtype=torch.float64)
    whole = mixer(x, Context.of(x))
    weights = {name: mixer.get_submodule(name).weight for name in (*split, "out")}
    halves = []
    for half in (0, 1):
        for name, heads in split.items():
            _put(mixer.get_submodule(name), weights[name].unflatten(0, (heads, -1)).chunk(2)[half].flatten(0, 1))
        _put(mixer.out, weights["out"].chunk(2, dim=1)[half])
        halves.append(mixer(x, Context.of(x)))
    torch.testing.assert_close(halves[0] + halves[1], whole)


def _put(layer: nn.Module, weight: Tensor) -> None:
    layer.weight = nn.Parameter(weight)
