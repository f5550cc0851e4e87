"""Packed weights give the plain product, and the rule that picks a layout."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from transformer_kit.model.model import Model
from transformer_kit.transform import packed_linear as module
from transformer_kit.transform.linear_layers import linear_layers
from transformer_kit.transform.packed_linear import MOST, PackedLinear, mkl, packed_linear, packer, packers, transposed

SIZES = st.integers(1, 70)


@given(features=SIZES, out=SIZES, biased=st.booleans(), seed=st.integers(0, 99))
def test_every_layout_multiplies(features: int, out: int, biased: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(out, features, generator=draw), torch.randn(out, generator=draw) if biased else None
    for rows in (1, 3):
        x = torch.randn(rows, 1, features, generator=draw)
        for pack in packers(weight, rows):
            torch.testing.assert_close(pack(weight, bias, rows)(x), F.linear(x, weight, bias), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("threads", "features", "count"),
    [(1, 48, 4), (1, 9, 3), (1, 7, 1), (2, 48, 4), (8, 48, 8), (9, 48, 8), (64, 9, 9)],
)
def test_each_thread_has_a_piece_of_the_inputs(
    threads: int, features: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal size, and at least four where they divide the inputs."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    weight, x = torch.randn(10, features), torch.randn(1, 1, features)
    pieces = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *given: pieces.append(len(given[0])) or bmm(*given))
    torch.testing.assert_close(transposed(weight, None, 1)(x), F.linear(x, weight), rtol=1e-4, atol=1e-4)
    assert pieces == [count]


def test_only_where_it_is_known_to_be_faster() -> None:
    weight = torch.randn(8, 8)
    assert packer(weight, MOST + 1) is None
    assert packer(weight.double(), 4) is None
    assert packer(weight.to("meta"), 4) is None


def test_one_row_reads_a_transposed_weight_but_where_the_plain_one_is_as_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = torch.randn(8, 8)
    monkeypatch.setattr(module, "prefers_mkl", lambda: False)
    assert packer(weight, 1) is transposed
    assert packer(weight, 2) is not transposed
    monkeypatch.setattr(module, "prefers_mkl", lambda: True)
    assert packer(weight, 1) is None
    assert packer(weight, 2) is mkl


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each packed product had; layers are packed whatever the machine."""
    seen: list[int] = []

    def pack(weight: torch.Tensor, bias: torch.Tensor | None, rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: seen.append(x.numel() // x.shape[-1]) or F.linear(x, weight, bias)

    monkeypatch.setattr(module, "packer", lambda weight, rows: pack)
    return seen


def test_layers_are_swapped_and_parameters_and_names_stay(model: Model, packed: list[int]) -> None:
    before = model.state_dict(keep_vars=True)
    assert packed_linear(model, 1) is model
    assert {type(layer) for _, layer in linear_layers(model)} == {PackedLinear}
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is tensor for name, tensor in before.items())


def test_products_of_other_sizes_use_the_weight(packed: list[int]) -> None:
    layer = packed_linear(nn.Sequential(nn.Linear(8, 5)), 2)[0]
    with torch.no_grad():
        for rows in (1, 2, 3):
            x = torch.randn(rows, 1, 8)
            torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    assert packed == [2]


def test_gradients_are_refused_and_not_left_out(packed: list[int]) -> None:
    layer = packed_linear(nn.Sequential(nn.Linear(8, 5)), 1)[0]
    with pytest.raises(RuntimeError, match="a packed linear layer is for inference and has no gradients"):
        layer(torch.randn(1, 8, requires_grad=True))


def test_a_copy_multiplies_as_well(model: Model) -> None:
    ids = torch.tensor([[3]])
    with torch.no_grad():
        expected = model(ids).logits
        torch.testing.assert_close(copy.deepcopy(packed_linear(model, 1))(ids).logits, expected, rtol=1e-4, atol=1e-5)
