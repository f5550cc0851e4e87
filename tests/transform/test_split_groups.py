"""Grouped linear layers in the transforms of CPUs: split, packed, quantized, or multiplied by oneDNN."""

from typing import Any

import pytest
import torch
from torch import Tensor

from transformer_kit import build
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Spec
from transformer_kit.transform import onednn_linear
from transformer_kit.transform.int8_bag import Int8BagLinear
from transformer_kit.transform.onednn_linear import OnednnGroupedLinear
from transformer_kit.transform.packed_linear import PackedLinear
from transformer_kit.transform.prepare import prepare_for_inference
from transformer_kit.transform.split_groups import SplitLinear

IDS = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(0))


def model(bias: bool = True) -> Model:
    expert = {"type": "gated", "d_ff": 64, "bias": bias}
    ffn = {"type": "moe", "n_experts": 5, "router": {"type": "softmax", "top_k": 2}, "expert": expert}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 4}, "ffn": ffn}
    sizes = {"vocab_size": 40, "d_model": 32, "max_seq_len": 16, "init": "torch"}
    return build(Spec.of({"model": {**sizes, "layers": {"count": 2, "block": block}}})).eval()


def made(prepared: Model, kind: type[Any]) -> bool:
    split = prepared.layers[0].ffn.experts.stacked.up
    return isinstance(split, SplitLinear) and all(isinstance(layer, kind) for layer in split)


@torch.no_grad()
def logits(any_model: Model) -> list[Tensor]:
    return [any_model(ids).logits for ids in (IDS, IDS[:1, :1])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("int8", "kind", "rounding"), [(False, PackedLinear, 1e-5), (True, Int8BagLinear, 3e-2)])
def test_experts_are_packed_and_quantized(bias: bool, int8: bool, kind: type[Any], rounding: float) -> None:
    prepared = prepare_for_inference(model(bias), int8=int8)
    assert made(prepared, kind)
    for got, expected in zip(logits(prepared), logits(model(bias)), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=rounding)


def test_experts_of_several_sequences_stay_grouped() -> None:
    prepared = prepare_for_inference(model(), batch=2)
    assert not made(prepared, torch.nn.Linear)
    assert prepared.generate([[1, 2]] * 2, max_new_tokens=3) == model().generate([[1, 2]] * 2, max_new_tokens=3)


@pytest.mark.parametrize("bias", [True, False])
def test_products_of_onednn(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(onednn_linear, "prefers_onednn", lambda: True)
    monkeypatch.setattr(onednn_linear, "WORK", 1)
    plain, swapped = model(bias), onednn_linear.onednn_linear(model(bias))
    assert isinstance(swapped.layers[0].ffn.experts.stacked.up, OnednnGroupedLinear)
    assert swapped.state_dict().keys() == plain.state_dict().keys()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        swapped(IDS, IDS).loss.backward()
    swapped.zero_grad()
    for one in (plain, swapped):
        one(IDS, IDS).loss.backward()
    for (name, a), b in zip(plain.named_parameters(), swapped.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, msg=lambda text, name=name: f"{name}: {text}")
