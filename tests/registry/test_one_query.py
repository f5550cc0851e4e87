"""One query of each head has a way of its own on a processor, where keys are many: the same attention."""

import pytest
import torch

from registry.context import Mask
from registry.core import get
from registry.kernel import _shared
from registry.kernel._shared import fused_attention, softmax_attention
from transformer_kit.testing.kernel_checks import equals_attention


@pytest.mark.parametrize("many", [0, 2**60])
def test_both_ways_are_attention(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    one_query = _shared._one_query
    monkeypatch.setattr(_shared, "MANY", many)
    monkeypatch.setattr(_shared, "_one_query", lambda *args: taken.append(1) or one_query(*args))
    equals_attention(get("kernel", "sdpa"))
    assert bool(taken) == (many == 0)


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_keys_of_a_longer_state(heads: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(2, 4, heads, 700, 64, generator=generator).to(dtype)
    k, v = state[:, :, :, :600]  # what is filled of it
    q = torch.randn(4, 8, 1, 64, generator=generator).to(dtype)
    assert k.numel() >= _shared.MANY
    mask = Mask(599, 1, 600, True, None, q.device)
    ways = {"scale": 0.125, "softcap": None, "bias": None, "sinks": None, "dropout": 0.0}
    exact = softmax_attention(q.double(), k.double(), v.double(), mask, **ways)
    close = {} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.005}
    torch.testing.assert_close(fused_attention(q, k, v, mask, **ways), exact.to(dtype), **close)
