"""Grouped linear layers against one layer for each group: values, gradients, types, compiled graphs, FLOPs."""

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from registry import grouped
from registry.grouped import GroupedLinear, grouped_linear, groups

ENDS = [(0, 0, 0, 0, 0), (3, 3, 20, 37, 37), (0, 0, 0, 0, 4), (130, 131, 133, 136, 400), (1, 2, 3, 4, 5)]
"""Where groups end: with and without rows, with two and three, more rows than a block holds."""


def drawn(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((rows, 6), (5, 4, 6), (5, 4))
    x, weight, bias = (torch.randn(s, generator=draw, dtype=torch.float64).to(dtype) for s in shapes)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


def one_by_one(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor) -> Tensor:
    pieces = enumerate(x.tensor_split(offsets[:-1].long()))
    return torch.cat([F.linear(piece, weight[e], None if bias is None else bias[e]) for e, piece in pieces])


def in_blocks(x: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor) -> Tensor:
    y = grouped._in_blocks(x, weight, offsets)
    return y if bias is None else y + bias[grouped._group_of_row(len(x), offsets)]


@pytest.mark.parametrize("product", [grouped_linear, in_blocks])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("biased", [True, False])
def test_as_one_layer_for_each_group(product: Callable[..., Tensor], ends: tuple[int, ...], biased: bool) -> None:
    x, weight, bias = drawn(ends[-1])
    offsets = torch.tensor(ends, dtype=torch.int32)
    given = [x, weight, *([bias] if biased else [])]
    results = [f(x, weight, bias if biased else None, offsets) for f in (product, one_by_one)]
    torch.testing.assert_close(*results)
    slope = torch.randn(results[0].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad(y, given, slope) for y in results))


def test_gradients_of_any_order() -> None:
    x, weight, bias = drawn(6)
    offsets = torch.tensor([1, 1, 3, 6, 6], dtype=torch.int32)
    assert torch.autograd.gradgradcheck(lambda *given: grouped_linear(*given, offsets), (x, weight, bias))


def test_functional_gradients() -> None:
    x, weight, bias = drawn(37)
    offsets = torch.tensor(ENDS[1], dtype=torch.int32)
    made = torch.func.grad(lambda w: grouped_linear(x.detach(), w, bias.detach(), offsets).square().sum())(weight)
    torch.testing.assert_close(
        made, torch.autograd.grad(one_by_one(x, weight, bias, offsets).square().sum(), weight)[0]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types(dtype: torch.dtype) -> None:
    x, weight, bias = drawn(37, dtype)
    offsets = torch.tensor(ENDS[1], dtype=torch.int32)
    got = grouped_linear(x, weight, bias, offsets)
    assert got.dtype == dtype
    torch.testing.assert_close(got, one_by_one(x, weight, bias, offsets), rtol=2e-2, atol=2e-2)


def test_autocast_narrows_as_for_linear_layers() -> None:
    x, weight, bias = drawn(37, torch.float32)
    offsets = torch.tensor(ENDS[1], dtype=torch.int32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, expected = grouped_linear(x, weight, bias, offsets), one_by_one(x, weight, bias, offsets)
    assert got.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


def test_operators_are_as_torch_wants_them() -> None:
    x, weight, _ = (t.detach() for t in drawn(37))
    offsets = torch.tensor(ENDS[1], dtype=torch.int32)
    torch.library.opcheck(torch.ops.transformer_kit.grouped_mm.default, (x, weight.mT, offsets))
    torch.library.opcheck(torch.ops.transformer_kit.grouped_outer.default, (x, x, offsets))


def layer() -> GroupedLinear:
    made = GroupedLinear(nn.Linear(6, 4, dtype=torch.float64), 5)
    with torch.no_grad():
        for own, value in zip(made.parameters(), drawn(1)[1:], strict=True):
            own.copy_(value)
    return made


class Grouping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = layer()

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        with groups(offsets):
            out: Tensor = self.layer(x)
        return out


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_one_graph(backend: str) -> None:
    model, (x, _, _) = Grouping(), drawn(37)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for ends in ENDS[1:2] * 2:
        offsets = torch.tensor(ends, dtype=torch.int32)
        results = [one(x, offsets) for one in (compiled, model)]
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), [*model.parameters(), x]) for y in results))
    torch.compiler.reset()


def test_rows_of_several_dimensions() -> None:
    x = drawn(37)[0].detach()
    offsets = torch.tensor(ENDS[1], dtype=torch.int32)
    with groups(offsets):
        wide = layer()(x[:, None, :].expand(-1, 3, -1))
        torch.testing.assert_close(wide, layer()(x)[:, None, :].expand(-1, 3, -1))


def test_outside_of_groups_is_an_error() -> None:
    x, one = drawn(37)[0], layer()
    offsets = torch.tensor(ENDS[1], dtype=torch.int32)
    with groups(offsets):
        one(x)
    with pytest.raises(RuntimeError, match=r"of 5 groups must be called inside groups\(offsets\)"):
        one(x)
    with groups(offsets[:3]), pytest.raises(RuntimeError, match="of 5 groups"):
        one(x)


def test_offsets_are_those_of_the_thread() -> None:
    x, one, failed = drawn(37)[0], layer(), list[Exception]()

    def call() -> None:
        try:
            one(x)
        except RuntimeError as error:
            failed.append(error)

    with groups(torch.tensor(ENDS[1], dtype=torch.int32)):
        other = threading.Thread(target=call)
        other.start()
        other.join()
    assert len(failed) == 1


def test_flops_are_those_of_a_linear_layer() -> None:
    counted = []
    for offsets, device in ((torch.tensor(ENDS[1], dtype=torch.int32), "cpu"), (torch.empty(5).int(), "meta")):
        x, weight, _ = (t.detach().to(device).requires_grad_() for t in drawn(37))
        with FlopCounterMode(display=False) as counter:
            grouped_linear(x, weight, None, offsets.to(device)).sum().backward()
        counted.append(counter.get_total_flops())
    assert counted == [3 * 2 * 37 * 6 * 4] * 2
