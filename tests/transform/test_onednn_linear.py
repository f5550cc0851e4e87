"""Linear layers: torch's product and oneDNN's are one, in values and in gradients, wherever the latter is taken."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from transformer_kit import build
from transformer_kit.transform import cpu
from transformer_kit.transform import onednn_linear as module
from transformer_kit.transform.linear_layers import linear_layers
from transformer_kit.transform.onednn_linear import OnednnLinear, linear, onednn_linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
SIZES = st.integers(1, 40)


@pytest.fixture(scope="module", autouse=True)
def everywhere() -> Iterator[None]:
    """Products of any size, on any processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "prefers_onednn", lambda: True)
        patch.setattr(module, "WORK", 1)
        yield


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the products that oneDNN makes."""
    shapes: list[tuple[int, ...]] = []
    multiply = module._multiply

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shapes.append((len(x), *weight.shape))
        return multiply(x, weight, bias)

    monkeypatch.setattr(module, "_multiply", noted)
    return shapes


@given(rows=SIZES, features=SIZES, out=SIZES, biased=st.booleans(), way=st.sampled_from(["plain", "view", "expanded"]))
def test_products_and_gradients_are_those_of_torch(rows: int, features: int, out: int, biased: bool, way: str) -> None:
    draw = torch.Generator().manual_seed(rows * features * out)
    x, weight = torch.randn(2, rows, features, generator=draw), torch.randn(out, features, generator=draw)
    if way == "view":
        x, weight = x.transpose(0, 1), torch.randn(features, out, generator=draw).t()
    if way == "expanded":
        x = x[:1, :1].expand(2, rows, features)
    bias = torch.randn(out, generator=draw) if biased else None
    given = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (x, weight)]
    given += [] if bias is None else [bias.requires_grad_()]
    found, expected = linear(*given), F.linear(*given)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    slope = torch.randn(1, 1, out, generator=draw).expand(found.shape)  # as that of a sum
    pairs = zip(torch.autograd.grad(found, given, slope), torch.autograd.grad(expected, given, slope), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_of_gradients(made: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(5, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    seconds = []
    for product in (linear, F.linear):
        (first,) = torch.autograd.grad(product(x, weight).square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), (x, weight)))
    for mine, theirs in zip(*seconds, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert len(made) > 3


def test_little_work_is_worth_it_where_the_weight_is_large(
    made: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORK", 61)
    monkeypatch.setattr(module, "LARGE", 12)
    linear(torch.randn(5, 4), torch.randn(3, 4))
    assert made == [(5, 3, 4)]
    linear(torch.randn(0, 4), torch.randn(3, 4))
    assert len(made) == 1


def test_what_needs_no_gradient_costs_none(made: list[tuple[int, ...]]) -> None:
    layer = OnednnLinear(nn.Linear(4, 3))
    layer.weight.requires_grad_(False)
    layer(torch.randn(5, 4, requires_grad=True)).sum().backward()
    assert made == [(5, 3, 4), (5, 4, 3)]
    assert layer.weight.grad is None
    assert layer.bias.grad is not None


@pytest.mark.parametrize("learns", ["x", "weight", "bias"])
def test_what_no_gradient_needs_is_not_kept(learns: str) -> None:
    given = {"x": torch.randn(5, 4), "weight": torch.randn(3, 4), "bias": torch.randn(3)}
    given[learns].requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = linear(**given)
    assert [t.shape for t in kept] == {"x": [(3, 4)], "weight": [(5, 4)], "bias": []}[learns]
    y.sum().backward()
    assert given[learns].grad is not None


def test_flops_are_counted_as_torch_counts_them(made: list[tuple[int, ...]]) -> None:
    layer, plain = OnednnLinear(nn.Linear(6, 4)), nn.Linear(6, 4)
    counts = []
    for each in (layer, plain):
        with FlopCounterMode(display=False) as counter:
            each(torch.randn(2, 3, 6, requires_grad=True)).sum().backward()
        counts.append(counter.get_total_flops())
    assert made
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(("x", "weight", "bias"), [
    ((5, 4), (3, 5), None), ((5, 4), (3, 4), (4,)), ((5, 4), (3, 4), (1,)), ((5, 4), (4,), None), ((4,), (3, 4), (3,)),
    ((), (3, 4), None), ((5, 4), (2, 3, 4), None), ((5, 4), (3, 4), (5, 3)),
])  # fmt: skip
def test_what_does_not_fit_is_what_torch_says(
    x: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None
) -> None:
    given = [torch.randn(x), torch.randn(weight), None if bias is None else torch.randn(bias)]
    try:
        expected = F.linear(*given)
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match=re.escape(str(error).split(chr(10))[0])):
            linear(*given)
    else:
        torch.testing.assert_close(linear(*given), expected)


def test_modes_that_watch_are_told(made: list[tuple[int, ...]]) -> None:
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Watch():
        linear(torch.randn(5, 4), torch.randn(3, 4))
    assert linear in seen
    assert made


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # in forward_ad itself, too
@pytest.mark.parametrize("why", [
    "little work", "another type", "mixed types", "autocast", "a kind of its own", "another device",
    "switched off", "torch.func", "forward gradients",
])  # fmt: skip
def test_the_rest_is_torchs(why: str, made: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    class Kind(Tensor):
        pass

    x, weight = torch.randn(5, 4), torch.randn(3, 4)
    linear(x, weight)
    assert len(made) == 1
    if why == "little work":
        monkeypatch.setattr(module, "WORK", 61)
        monkeypatch.setattr(module, "LARGE", 13)
    if why == "another type":
        x, weight = x.double(), weight.double()
    if why == "a kind of its own":
        weight = weight.as_subclass(Kind)
    if why == "another device":
        x, weight = x.to("meta"), weight.to("meta")
    if why == "torch.func":
        torch.func.vmap(lambda row: linear(row, weight))(x[:, None])
    elif why == "forward gradients":
        with forward_ad.dual_level():
            linear(forward_ad.make_dual(x, x), weight)
    elif why == "mixed types":
        with pytest.raises(RuntimeError, match="dtype"):
            linear(x.double(), weight)
    elif why == "switched off":
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            linear(x, weight)
        finally:
            torch._C._set_mkldnn_enabled(before)
    else:
        with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
            linear(x, weight)
    assert len(made) == 1


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_sparse_and_traced_products_are_torchs(made: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(5, 4), torch.randn(3, 4)
    torch.testing.assert_close(linear(x, weight.to_sparse()), F.linear(x, weight))
    torch.jit.trace(lambda x: linear(x, weight), x, check_trace=False)
    assert not made


def test_layers_are_swapped_and_parameters_and_names_stay() -> None:
    model = build("tutorial").eval()
    before, ids = model.state_dict(keep_vars=True), torch.tensor([[1, 2, 3]])
    expected = model(ids).logits
    assert onednn_linear(model) is model
    kinds = {type(layer) for _, layer in linear_layers(model)}
    after = model.state_dict(keep_vars=True)
    assert kinds == {OnednnLinear}
    assert list(after) == list(before)
    assert all(after[name] is tensor for name, tensor in before.items())
    torch.testing.assert_close(model(ids).logits, expected)


def test_layers_with_hooks_and_of_a_class_of_their_own_stay() -> None:
    class Own(nn.Linear):
        pass

    model = build("tutorial")
    layer = model.layers[0]
    layer.ffn.down = Own(layer.ffn.down.in_features, layer.ffn.down.out_features)
    layer.ffn.up.register_forward_hook(lambda *_: None)
    onednn_linear(model)
    assert [type(m) for m in (layer.ffn.down, layer.ffn.up, model.layers[1].ffn.up)] == [Own, nn.Linear, OnednnLinear]


def test_nothing_is_swapped_where_torch_is_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "prefers_onednn", lambda: False)
    assert {type(layer) for _, layer in linear_layers(onednn_linear(build("tutorial")))} == {nn.Linear}


@pytest.mark.parametrize(("told", "vendor"), [
    ("vendor_id\t: GenuineIntel\ncpu family\t: 6", "intel"),
    ("model name\t: Intel(R) Xeon(R) Processor", "intel"),
    ("Intel64 Family 6 Model 85 Stepping 7, GenuineIntel", "intel"),
    ("i386", "intel"),
    ("vendor_id\t: AuthenticAMD\ncpu family\t: 26", "amd"),
    ("AMD64 Family 25 Model 33 Stepping 2, AuthenticAMD", "amd"),
    ("arm", None),
])  # fmt: skip
def test_the_vendor_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, vendor: str | None) -> None:
    (tmp_path / "cpuinfo").write_text(told)
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    assert cpu._vendor() == vendor


@pytest.mark.parametrize(("vendor", "wide", "expected"), [
    ("amd", True, (True, False)), ("amd", False, (False, False)),
    ("intel", True, (False, True)), ("intel", False, (False, False)), (None, True, (False, False)),
])  # fmt: skip
def test_the_library_is_chosen_by_vendor_and_vectors(
    monkeypatch: pytest.MonkeyPatch, vendor: str | None, wide: bool, expected: tuple[bool, bool]
) -> None:
    monkeypatch.setattr(cpu, "_vendor", lambda: vendor)
    monkeypatch.setattr(cpu, "_has_avx512", lambda: wide)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert (cpu.prefers_onednn.__wrapped__(), cpu.prefers_mkl.__wrapped__()) == expected
