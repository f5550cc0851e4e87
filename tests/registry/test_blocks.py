"""Norms of a block's branches: each slot is its own, and the block's norm is what an open one takes."""

from typing import Any

import pytest
import torch
from torch import nn

from registry import core
from registry.context import Context
from transformer_kit import Spec, SpecError, build
from transformer_kit.model.model import Model

SLOTS = {
    name: [slot for slot in core.get("block", name).Options.model_fields if slot.endswith("_norm")]
    for name in core.names("block")
}
EACH = [(block, slot) for block, slots in SLOTS.items() for slot in slots]


def model(**block: Any) -> Model:
    """One layer; the norm of the model is an RMS norm, that of the block a LayerNorm."""
    block = {"mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp", "norm": "layer_norm", **block}
    sizes = {"vocab_size": 11, "d_model": 8, "max_seq_len": 8, "norm": "rms_norm"}
    return build(Spec.of({"model": {**sizes, "layers": {"count": 1, "block": block}}}))


def norms(of: Model) -> dict[str, nn.Module]:
    return {name: m for name, m in of.layers[0].named_children() if name.endswith("_norm")}


def test_every_block_has_a_slot_for_each_of_its_norms() -> None:
    assert len(SLOTS["sandwich"]) == 4
    for block, slots in SLOTS.items():
        options = {"norms": 2} if block == "parallel" else {}
        assert set(norms(model(type=block, **options))) == set(slots)


@pytest.mark.parametrize(("block", "slot"), EACH, ids=[f"{b}-{s}" for b, s in EACH])
def test_a_slot_holds_its_own_norm_and_open_ones_that_of_the_block(block: str, slot: str) -> None:
    options = {"norms": 2} if block == "parallel" else {}
    for name, norm in norms(model(type=block, **options, **{slot: {"type": "rms_norm", "eps": 0.25}})).items():
        assert (type(norm).__name__, norm.eps) == (("RMSNorm", 0.25) if name == slot else ("LayerNorm", 1e-5))


def test_a_norm_that_nothing_reads_is_refused() -> None:
    with pytest.raises(SpecError, match="set norms: 2, or leave ffn_norm out"):
        model(type="parallel", ffn_norm="rms_norm")


@pytest.mark.parametrize("block", ["post_norm", "norm_residual"])
def test_what_stays_of_the_residual_path(block: str) -> None:
    """Without norms, which would hide a factor, and with branches whose results are constants."""
    layer = model(type=block, norm="none", mixer_alpha=3.0, ffn_alpha=0.5).layers[0]
    for branch, constant in ((layer.mixer, 1.0), (layer.ffn, 2.0)):
        branch.forward = lambda x, *_, constant=constant: torch.full_like(x, constant)
    x = torch.randn(1, 4, 8)
    torch.testing.assert_close(layer(x, Context.of(x)), 0.5 * (3.0 * x + 1.0) + 2.0)
