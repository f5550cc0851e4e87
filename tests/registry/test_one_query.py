"""One query of each head has a way of its own on a processor, where keys are many: the same attention."""

from typing import Any

import pytest
import torch
from torch import Tensor

from registry.context import Mask
from registry.core import get
from registry.kernel import _shared
from transformer_kit.testing.kernel_checks import equals_attention

SDPA = get("kernel", "sdpa")(None, None)


@pytest.mark.parametrize("many", [0, 2**60])
def test_both_ways_are_attention(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = _watched(monkeypatch)
    monkeypatch.setattr(_shared, "MANY", many)
    monkeypatch.setattr(_shared, "LONG", 0)
    equals_attention(get("kernel", "sdpa"))
    assert bool(taken) == (many == 0)


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 3e-3), (torch.float16, 5e-4)]
)
def test_scores_are_not_rounded(heads: int, dtype: torch.dtype, off: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of scores as large as 16 a rounded one would be off by far more."""
    taken = _watched(monkeypatch)
    monkeypatch.setattr(_shared, "MANY", 0)
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(2, 4, heads, 700, 64, generator=generator).to(dtype)
    k, v = state[:, :, :, :600]  # what is filled of it
    q = (4 * torch.randn(4, 8, 1, 64, generator=generator)).to(dtype)
    ways: dict[str, Any] = {"softcap": None, "bias": None, "sinks": None, "dropout": 0.0}
    found = SDPA(q, k, v, Mask(599, 1, 600, True, None, q.device), scale=0.125, **ways)
    assert found.dtype == dtype
    assert taken
    each = 8 // heads
    keys, values = (t.double().repeat_interleave(each, dim=1) for t in (k, v))
    exact = (0.125 * q.double() @ keys.mT).softmax(dim=-1) @ values
    assert float((found.double() - exact).norm() / exact.norm()) < off


@pytest.mark.parametrize("keys", [_shared.LONG - 1, _shared.LONG])
def test_few_keys_of_many_rows_are_left_to_the_fused_kernel(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = _watched(monkeypatch)
    k = torch.randn(128, 2, keys, 64)
    q = torch.randn(128, 4, 1, 64)
    mask = Mask(keys - 1, 1, keys, True, None, q.device)
    SDPA(q, k, k, mask, scale=0.125, softcap=None, bias=None, sinks=None, dropout=0.0)
    assert k.numel() >= _shared.MANY
    assert bool(taken) == (keys == _shared.LONG)


@pytest.mark.parametrize(("dtype", "keys"), [(torch.float32, 683), (torch.bfloat16, 171)])
def test_few_numbers_are_left_to_the_fused_kernel(
    dtype: torch.dtype, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = _watched(monkeypatch)
    for more, count in ((False, keys - 1), (True, keys)):  # of 12 heads, 64 numbers each
        q, k = torch.randn(1, 12, 1, 64, dtype=dtype), torch.randn(1, 12, count, 64, dtype=dtype)
        mask = Mask(count - 1, 1, count, True, None, q.device)
        SDPA(q, k, k, mask, scale=0.125, softcap=None, bias=None, sinks=None, dropout=0.0)
        assert bool(taken) == more


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What is computed in the way of one query from now on."""
    taken: list[Tensor] = []
    one_query = _shared.one_query

    def watched(*args: Any) -> Tensor:
        taken.append(one_query(*args))
        return taken[-1]

    monkeypatch.setattr(_shared, "one_query", watched)
    return taken
