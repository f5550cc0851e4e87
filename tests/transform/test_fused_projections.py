"""Fused projections are one product, where everybody can see it, and never a wrong one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from transformer_kit.generate import generate
from transformer_kit.model.model import Model
from transformer_kit.transform.fused_projections import FusedOutput, FusedProjection, fused_projections
from transformer_kit.transform.linear_layers import linear_layers

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
LATENT = {
    "type": "mla", "n_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip


def kinds(model: Model) -> dict[str, str]:
    return {
        name: type(module).__name__
        for name, module in model.layers[0].named_modules()
        if isinstance(module, (nn.Linear, FusedProjection, FusedOutput))
    }


def test_layers_of_the_same_input_become_one_product(model: Model) -> None:
    expected = model(IDS).logits
    assert fused_projections(model) is model
    assert kinds(model) == {
        "mixer.q": "FusedProjection",
        "mixer.q.linear": "Linear",
        "mixer.k": "FusedOutput",
        "mixer.v": "FusedOutput",
        "mixer.out": "Linear",
        "ffn.gate": "FusedProjection",
        "ffn.gate.linear": "Linear",
        "ffn.up": "FusedOutput",
        "ffn.down": "Linear",
    }
    torch.testing.assert_close(model(IDS).logits, expected)


def test_decoding_with_fused_projections_is_the_same(model: Model) -> None:
    expected = generate(model, IDS, max_new_tokens=8)
    assert generate(fused_projections(model), IDS, max_new_tokens=8) == expected


def test_layers_that_read_the_same_are_fused_though_others_stand_between(make: Callable[..., Model]) -> None:
    model = make(layers={"count": 1, "block": {"type": "pre_norm", "mixer": LATENT, "ffn": "mlp"}})
    expected = model(IDS).logits
    found = kinds(fused_projections(model))
    assert [found[f"mixer.{name}"] for name in ("kv_down", "q_down", "k_rope")] == [
        "FusedProjection", "FusedOutput", "FusedOutput",
    ]  # fmt: skip
    assert found["mixer.q_up"] == "Linear"
    torch.testing.assert_close(model(IDS).logits, expected)


def test_hooks_of_fused_modules_fire(model: Model) -> None:
    fused_projections(model)
    called: set[str] = set()
    for name, module in model.named_modules():
        assert model.get_submodule(name) is module
        module.register_forward_hook(lambda module, given, out, name=name: called.add(name))
    model(IDS)
    assert {"layers.0.mixer.q", "layers.0.mixer.q.linear", "layers.0.mixer.k", "layers.0.ffn.up"} <= called


@pytest.mark.parametrize("why", ["first", "other tensor", "twice"])
def test_a_call_out_of_order_raises(model: Model, why: str) -> None:
    mixer = fused_projections(model).layers[0].mixer
    x = torch.randn(1, 2, 64)
    if why != "first":
        mixer.q(x)
    if why == "twice":
        mixer.k(x)
    with pytest.raises(RuntimeError, match=r"layers\.0\.mixer\.k is part of a fused projection"):
        mixer.k(x.clone() if why == "other tensor" else x)


class Own(nn.Linear):
    pass


def _hooked(model: Model) -> None:
    model.layers[0].mixer.k.register_forward_hook(lambda *_: None)


def _own(model: Model) -> None:
    model.layers[0].mixer.k = Own(64, 32, bias=False)


def _changed(model: Model) -> None:
    """The second layer gets the tensor of the first after something was written into it."""
    mixer = model.layers[0].mixer
    plain = type(mixer).forward

    def forward(self: Any, x: Tensor, *given: Any) -> Tensor:
        self.q(x)
        x += 1
        self.k(x)
        x -= 1
        return plain(self, x, *given)

    mixer.__class__ = type("Writing", (type(mixer),), {"forward": forward})


@pytest.mark.parametrize("change", [_hooked, _own, _changed])
def test_layers_that_cannot_be_fused_stay(model: Model, change: Callable[[Model], None]) -> None:
    change(model)
    assert isinstance(fused_projections(model).layers[0].mixer.k, nn.Linear)
    model(IDS)


def test_one_function_finds_linear_layers_of_every_kind(model: Model) -> None:
    before = sum(layer.in_features * layer.out_features for _, layer in linear_layers(model))
    fused_projections(model)
    names = [name for name, _ in linear_layers(model)]
    assert "layers.0.mixer.q.linear" in names
    assert sum(layer.in_features * layer.out_features for _, layer in linear_layers(model)) == before


def test_a_fused_layer_compiles_in_one_graph(model: Model) -> None:
    with torch.inference_mode():
        expected = model(IDS).logits
        fused_projections(model)
        for layer in model.layers:
            layer.compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(model(IDS).logits, expected)
    torch.compiler.reset()
