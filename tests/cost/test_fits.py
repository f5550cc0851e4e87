"""The largest that fits: found in few counts, and exact."""

from collections.abc import Callable
from typing import Any

import pytest

from transformer_kit.cost.card import card
from transformer_kit.cost.fits import largest, largest_batch, longest_context
from transformer_kit.cost.plan import planned
from transformer_kit.spec.schema import Spec

Page = Callable[..., Spec]
COSTS: dict[str, Callable[[int], int]] = {
    "line": lambda n: 1000 + 37 * n,
    "square": lambda n: 10 + n * n,
    "level, then line": lambda n: max(50_000, 100 * n),
    "steps": lambda n: 1000 * (n // 7),
}


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("limit", [5, 1037, 1074, 49_999, 50_000, 50_001, 123_456, 10**7])
def test_the_largest_below_a_limit(cost: Callable[[int], int], limit: int) -> None:
    asked = set()

    def counted(n: int) -> int:
        assert 1 <= n <= 5000
        asked.add(n)
        return cost(n)

    found = largest(counted, limit, 5000)
    assert found == max((n for n in range(1, 5001) if cost(n) <= limit), default=1)
    assert len(asked) <= 32
    if cost is COSTS["line"]:
        assert len(asked) <= 8


@pytest.mark.parametrize("purpose", ["train", "decode"])
@pytest.mark.parametrize("options", [{}, {"mixer": {"softcap": 30.0}}], ids=["linear", "quadratic"])
def test_the_card_agrees(page: Page, purpose: str, options: dict[str, Any]) -> None:
    spec = page(**options)

    def taken(batch: int, seq: int) -> int:
        found = card(spec, batch=batch, seq=seq)
        return found.memory.peak if purpose == "train" else found.memory.weights + found.state.total

    limit = taken(5, 64) + 1000
    with planned(spec, dtype="float32", optimizer=None, activation_checkpointing=None) as plan:
        batch = largest_batch(plan, purpose, limit, seq=64)
        context = longest_context(plan, purpose, limit, batch=5)
    assert (batch.batch, batch.needs) == (5, taken(5, 64))
    assert batch.beyond == taken(6, 64) > limit
    assert context.fits
    assert 64 <= context.seq < 128
    assert context.beyond == taken(5, context.seq + 1) > limit


def test_when_nothing_fits_the_least_is_told(page: Page) -> None:
    with planned(page(), dtype="float32", optimizer=None, activation_checkpointing=None) as plan:
        found = largest_batch(plan, "train", 1000, seq=8)
        assert not found.fits
        assert (found.batch, found.beyond) == (1, None)
        assert longest_context(plan, "decode", 10**12, batch=1).seq == 128
