"""Int8 weights: off by half a step of each at most, a quarter of the memory, and never where that is not known."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transformer_kit.model.model import Model
from transformer_kit.transform.int8 import FEW, Int8Linear, int8
from transformer_kit.transform.int8_bag import Int8BagLinear
from transformer_kit.transform.linear_layers import QuantizedLinear, linear_layers


@given(
    features=st.sampled_from([1, 7, 16, 31, 32, 64, 96]),
    out=st.integers(1, 40),
    rows=st.sampled_from([0, 1, 5, FEW, FEW + 1]),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_products_are_off_by_their_steps(features: int, out: int, rows: int, biased: bool, seed: int) -> None:
    """Each weight by half a step, and the few rows that the int8 kernel multiplies by bfloat16's rounding."""
    draw = torch.Generator().manual_seed(seed)
    layer = nn.Linear(features, out, bias=biased)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(out, features, generator=draw))
        x = torch.randn(rows, 1, features, generator=draw)
        expected, found = layer(x), Int8Linear(layer)(x)
    steps = layer.weight.detach().abs().amax(1) / 127
    bound = x.abs().sum(-1, keepdim=True) * steps / 2 + 2**-7 * F.linear(x.abs(), layer.weight.detach().abs())
    assert found.shape == expected.shape
    assert ((found - expected).abs() <= bound + 1e-5).all()


@given(
    features=st.integers(1, 70), out=st.integers(1, 40), rows=st.sampled_from([0, 1, 3]), biased=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_bags_are_off_by_their_steps(features: int, out: int, rows: int, biased: bool, seed: int) -> None:
    """Each weight by half a step of 255 between the least and the largest of a piece of its column, at most."""
    draw = torch.Generator().manual_seed(seed)
    layer = nn.Linear(features, out, bias=biased)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(out, features, generator=draw))
        x = torch.randn(rows, 1, features, generator=draw)
        expected, found = layer(x), Int8BagLinear(layer)(x)
        spread = layer.weight.amax(0).clamp(min=0) - layer.weight.amin(0).clamp(max=0)  # zeros fill pieces up
    bound = (x.abs() * spread).sum(-1, keepdim=True) / 255 / 2
    assert found.shape == expected.shape
    assert ((found - expected).abs() <= bound * 1.01 + 1e-4).all()


@pytest.mark.parametrize(("features", "packs"), [(64, True), (48, False)])
def test_the_kernel_is_asked_where_it_knows_the_width(
    features: int, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    plain = torch._weight_int8pack_mm
    monkeypatch.setattr(torch, "_weight_int8pack_mm", lambda *given: asked.append(given) or plain(*given))
    with torch.no_grad():
        Int8Linear(nn.Linear(features, 8))(torch.randn(1, features))
    assert bool(asked) is packs


def test_a_row_of_zeros_stays_zero() -> None:
    layer = nn.Linear(32, 2, bias=False)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        assert not Int8Linear(layer)(torch.randn(1, 32)).any()


@pytest.mark.parametrize(("rows", "kind"), [(1, Int8BagLinear), (2, Int8Linear)])
def test_one_sequence_at_a_time_reads_bags(model: Model, rows: int, kind: type[nn.Module]) -> None:
    assert {type(layer) for _, layer in linear_layers(int8(model, rows))} == {kind}


@pytest.mark.parametrize("rows", [1, 2])
def test_weights_take_a_quarter(make: Callable[..., Model], rows: int) -> None:
    model = make(d_model=128, head={"type": "lm"})
    before = sum(layer.weight.nbytes for _, layer in linear_layers(model))
    assert int8(model, rows) is model
    layers = [layer for _, layer in linear_layers(model)]
    assert all(isinstance(layer, QuantizedLinear) for layer in layers)
    after = sum(buffer.nbytes for layer in layers for buffer in layer.buffers())
    assert after < 0.5 * before  # with scales, of which a small layer has many
    assert not any("mixer." in name for name, _ in model.named_parameters())


def test_a_layer_whose_weight_is_read_at_times_stays(model: Model) -> None:
    attention = model.layers[0].mixer
    plain = type(attention).forward

    def forward(self: nn.Module, x: torch.Tensor, *given: object) -> torch.Tensor:
        if x.shape[1] > 1:
            self.value(x)
        return plain(self, x, *given) + F.linear(x, self.value.weight)

    attention.value = nn.Linear(64, 64, bias=False)
    attention.__class__ = type("Reading", (type(attention),), {"forward": forward})
    int8(model)
    assert type(attention.value) is nn.Linear
    assert isinstance(attention.out, QuantizedLinear)
    with torch.no_grad():
        model(torch.tensor([[1]]))


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: m.double(), "int8 is for models in float32 or bfloat16, got float64; leave int8 out or choose a dtype"),
    (lambda m: m.to("meta"), "int8 is for models on a CPU, the model is on meta; leave int8 out"),
])  # fmt: skip
def test_what_cannot_be_quantized_is_refused(model: Model, change: Callable[[Model], Model], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        int8(change(model))


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("ids", [[[3]], [[3, 4]]])
def test_bfloat16_gives_bfloat16(model: Model, rows: int, ids: list[list[int]]) -> None:
    with torch.no_grad():
        expected = model(torch.tensor(ids)).logits
        found = int8(model.bfloat16(), rows)(torch.tensor(ids)).logits
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("kind", [Int8Linear, Int8BagLinear])
def test_gradients_are_refused_and_not_left_out(kind: type[Int8Linear | Int8BagLinear]) -> None:
    with pytest.raises(RuntimeError, match="an int8 linear layer is for inference and has no gradients"):
        kind(nn.Linear(32, 8))(torch.randn(1, 32, requires_grad=True))
