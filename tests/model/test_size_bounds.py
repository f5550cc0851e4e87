"""Models of too many parts are refused before they are built: in seconds, and in little memory."""

import time
from typing import Any

import pytest

from transformer_kit.convert.folder import model_of
from transformer_kit.convert.page import declaration_of
from transformer_kit.model import build as module
from transformer_kit.model.build import assemble, assemble_distinct
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.schema import Spec


def page(count: int = 2, at: dict[int, Any] | None = None, heads: int = 2, **ffn: Any) -> dict[str, Any]:
    mixer = {"type": "attention", "n_heads": heads, "head_dim": 4, "qk_norm": "rms_norm", "qkv": {"norm_scope": "each"}}
    block = {"type": "pre_norm", "mixer": mixer, "ffn": ffn}
    layers = {"count": count, "block": block, "at": at or {}}
    return {"model": {"vocab_size": 40, "d_model": 8, "max_seq_len": 8, "layers": layers}}


def mixture(experts: int, expert: Any = "gated", **more: Any) -> dict[str, Any]:
    return {"type": "moe", "n_experts": experts, "router": {"type": "softmax", "top_k": 2}, "expert": expert, **more}


NORMED = {"type": "gated", "norm": "rms_norm"}
"""Experts with weights beside their linear layers, each a module of its own."""
MANY = {
    "experts": (page(**mixture(10**5)), "n_experts: must be at most 2048, got 100000"),
    "more experts": (page(**mixture(10**9)), "n_experts: must be at most 2048, got 1000000000"),
    "experts of experts": (page(**mixture(2048, mixture(2048))), "consists of more than 1,024 parts that differ"),
    "layers of experts": (page(1024, **mixture(64, NORMED)), "consists of more than 4,096 parts"),
    "other layers": (
        page(100, {i: {"ffn": {"scale": i + 1.0}} for i in range(100)}, **mixture(128, NORMED)),
        "consists of more than 1,024 parts that differ",
    ),
    "heads": (page(heads=10**9, type="gated"), "consists of more than 1,024 parts that differ"),
    "wrong layers": (page(1024, **mixture(64, shared_gate=True)), "shared_gate needs a shared expert"),
}


@pytest.mark.parametrize("what", MANY)
@pytest.mark.parametrize("build", [assemble, assemble_distinct])
def test_too_many_parts(what: str, build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PARTS", 4096)  # a sixteenth: to try it takes time
    monkeypatch.setattr(module, "MAX_DISTINCT", 1024)
    mapping, told = MANY[what]
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        build(Spec.of(mapping))
    assert time.process_time() - began < 3
    assert told in str(caught.value)
    assert len(caught.value.problems) < 5


@pytest.mark.parametrize("experts", [200, 2048])
def test_experts_cost_nothing_to_build(experts: int) -> None:
    config = {"model_type": "mixtral", "num_hidden_layers": 500, "num_local_experts": experts}
    sizes = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    spec = {**config, **sizes, "num_key_value_heads": 2, "max_position_embeddings": 8}
    began = time.process_time()
    model = model_of(spec, declaration_of(spec))
    assert time.process_time() - began < 5
    assert model.layers[499].ffn.experts.stacked.down.weight.shape == (experts, 8, 8)


def test_many_layers_that_differ() -> None:
    spec = Spec.of(page(500, {i: {"ffn": {"d_ff": i + 1}} for i in range(500)}, type="gated"))
    began = time.process_time()
    assert len(assemble_distinct(spec)[1]) == 500
    assert time.process_time() - began < 5
