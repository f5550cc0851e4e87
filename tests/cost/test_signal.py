"""Signals at the start: for every position, norm and block activations and gradients stay within bounds."""

from typing import Any

import pytest
import torch

from registry import core
from transformer_kit.cost.card import card
from transformer_kit.cost.signal import FAR, signal
from transformer_kit.model.build import build
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import Spec


def page(**model: Any) -> Spec:
    block = {"type": model.pop("block", "pre_norm"), "mixer": {"type": "attention", "n_heads": 4}, "ffn": "mlp"}
    sizes = {"vocab_size": 64, "d_model": 64, "max_seq_len": 32, "layers": {"count": 4, "block": block}}
    return Spec.of({"model": sizes | {"init": "gpt2"} | model})


@pytest.mark.parametrize("position", core.names("position"))
@pytest.mark.parametrize("norm", core.names("norm"))
@pytest.mark.parametrize("block", core.names("block"))
def test_signals_neither_vanish_nor_explode(position: str, norm: str, block: str) -> None:
    found = signal(page(position=position, norm=norm, block=block), 32)
    layers = [stage for stage in found.stages if stage.name.startswith("layers")]
    assert len(layers) == 4
    assert all(0.01 < stage.activation < 4 for stage in layers)
    assert all(1e-3 < stage.gradient < 2 for stage in layers)
    assert layers[-1].activation < 100 * layers[0].activation
    assert layers[0].gradient < 100 * layers[-1].gradient
    assert all(stage.weights for stage in layers)
    assert found.stages[-1].activation < 1, "logits begin near those of a model that knows nothing"
    if found.scales is not None:
        assert max(found.scales) < FAR * min(found.scales)
        assert found.scales.note() is None


def test_stages_are_those_of_the_forward_pass() -> None:
    spec = page(position="learned", norm="layer_norm")
    model = build(spec).eval()
    outputs = {}
    for name in ("embedding", "layers.0", "layers.3", "norm", "head"):
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
    tokens, targets = torch.randint(64, (2, 16, 32), generator=torch.Generator().manual_seed(0))
    loss = model(tokens, targets).loss
    assert loss is not None
    inner = outputs["layers.0"]
    (slope,) = torch.autograd.grad(loss, inner)
    found = {stage.name: stage for stage in signal(spec, 32).stages}
    assert list(found) == ["embedding", "position", *(f"layers.{i}" for i in range(4)), "norm", "head"]
    for name, out in outputs.items():
        assert found[name].activation == pytest.approx(out.square().mean().sqrt().item(), rel=1e-5)
    assert found["layers.0"].gradient == pytest.approx(tokens.numel() * slope.square().mean().sqrt().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "large"),
    [
        ({"position": {"type": "sinusoidal", "scale": 1.0}}, "positions differ by"),
        ({"position": "learned", "embedding": {"type": "token", "scale": 8.0}}, "tokens differ by"),
        ({"position": "sinusoidal", "init": "torch"}, "tokens differ by"),
    ],
)
def test_unequal_scales_are_noted(change: dict[str, Any], large: str) -> None:
    scales = signal(page(**change), 32).scales
    assert scales is not None
    assert str(scales.note()).startswith(large)


def test_large_models_are_left_out() -> None:
    found = card(read("gpt2-124m"), batch=1, seq=8, signal=True).signal
    assert found is not None
    assert not found.stages
    assert found.scales is not None
    assert "more than 64,000,000 parameters" in str(found.skipped)
