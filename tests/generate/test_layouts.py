"""Layouts of weights: the plain product, and the rule that picks one."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from transformer_kit.generate import layouts
from transformer_kit.generate.layouts import Packer, columns, eight_bits, layout_for

SIZES = st.integers(1, 70)


@given(features=SIZES, out=SIZES, biased=st.booleans(), seed=st.integers(0, 99))
def test_every_layout_multiplies(features: int, out: int, biased: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(out, features, generator=draw), torch.randn(out, generator=draw) if biased else None
    for rows in (1, 3):
        x = torch.randn(rows, 1, features, generator=draw)
        for pack in layouts.layouts(rows):
            torch.testing.assert_close(pack(weight, bias)(x), F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)


@given(features=SIZES, out=SIZES, biased=st.booleans(), seed=st.integers(0, 99))
def test_eight_bits_are_off_by_their_steps(features: int, out: int, biased: bool, seed: int) -> None:
    """Each number by half a step of 255 between the least and the largest of a part of a column, at most."""
    draw = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(out, features, generator=draw), torch.randn(out, generator=draw) if biased else None
    x = torch.randn(1, 1, features, generator=draw)
    spread = weight.amax(0).clamp(min=0) - weight.amin(0).clamp(max=0)  # zeros fill parts up
    bound = (x.abs() * spread).sum() / 255 / 2
    off = (eight_bits(weight, bias)(x) - F.linear(x, weight, bias)).abs().max()
    assert off <= bound * 1.01 + 1e-4


@pytest.mark.parametrize(
    ("threads", "out", "count"),
    [(1, 50, 5), (1, 8, 2), (1, 7, 2), (2, 50, 10), (2, 49, 6), (2, 60, 6), (13, 50, 13), (64, 50, 64)],
)
def test_each_thread_has_as_many_parts(threads: int, out: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none is filled up where up to twice as many divide the outputs."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(layouts, "WIDTH", 10)
    weight, x = torch.randn(out, 40), torch.randn(1, 1, 40)
    parts = []
    bag = torch.embedding_bag
    monkeypatch.setattr(torch, "embedding_bag", lambda *a: parts.append(len(a[2])) or bag(*a))
    torch.testing.assert_close(columns(weight, None)(x), F.linear(x, weight), rtol=1e-4, atol=1e-4)
    assert parts == [count]


@pytest.mark.parametrize("pack", [columns, eight_bits])
def test_layouts_of_bfloat16_give_bfloat16(pack: Packer) -> None:
    weight, x = torch.randn(24, 40).bfloat16(), torch.randn(1, 1, 40).bfloat16()
    y = pack(weight, None)(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, F.linear(x, weight), rtol=0.05, atol=0.2)


def test_only_where_it_is_known_to_be_faster() -> None:
    weight = torch.randn(8, 8)
    assert layout_for(weight, layouts.MOST + 1) is None
    assert layout_for(weight.double(), 4) is None
    assert layout_for(weight.to("meta"), 4) is None


def test_one_row_reads_columns_where_they_are_added_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(8, 8)
    monkeypatch.setattr(layouts, "_prefers_mkl", lambda: False)
    monkeypatch.setattr(layouts, "_has_fbgemm", lambda: True)
    assert layout_for(weight, 1) is columns
    assert layout_for(weight, 2) is not columns
    monkeypatch.setattr(layouts, "_has_fbgemm", lambda: False)
    assert layout_for(weight, 1) is not columns
    monkeypatch.setattr(layouts, "_prefers_mkl", lambda: True)
    assert layout_for(weight, 1) is None
