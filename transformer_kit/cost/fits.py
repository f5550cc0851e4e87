"""The largest batch or the longest context whose counted memory stays below a limit.

    with planned(read("gpt2-124m"), dtype="float32", optimizer="adamw", activation_checkpointing=None) as plan:
        largest_batch(plan, "train", 24 * 1024**3, seq=1024)

The answer and the next larger size, which does not fit, are both counted. Nothing is extrapolated.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from transformer_kit.cost import count
from transformer_kit.cost.plan import Plan

PURPOSES = ("train", "decode")
MOST = 1_000_000_000
"""Largest batch to consider."""


class Fit(NamedTuple):
    """The largest size that fits a limit, or the smallest size when that does not fit."""

    limit: int
    """Bytes there are."""
    purpose: str
    """`train` for a training step, or `decode` for weights and decode state."""
    batch: int
    seq: int
    needs: int
    """Bytes of this size."""
    beyond: int | None
    """Bytes of the next larger size; None when there is none or it was not counted."""

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.needs <= self.limit


def needs(plan: Plan, purpose: str, batch: int, seq: int) -> int:
    """Peak bytes of a training step, or bytes of weights and decode state. ValueError when too large to count."""
    if purpose == "train":
        return plan.memory(plan.timeline(batch, seq)).peak
    return count.weight_bytes(plan.model, plan.places) + count.state_bytes(plan.model, batch, seq, plan.places)


def check(plan: Plan, purpose: str, limit: int, *, batch: int, seq: int) -> Fit:
    """Whether this batch of this length fits."""
    return Fit(limit, purpose, batch, seq, needs(plan, purpose, batch, seq), None)


def largest_batch(plan: Plan, purpose: str, limit: int, *, seq: int) -> Fit:
    """The largest batch of `seq` tokens that fits; 1 when not even that does."""
    cost = cache(lambda batch: needs(plan, purpose, batch, seq))
    batch = largest(cost, limit, MOST)
    return Fit(limit, purpose, batch, seq, cost(batch), _beyond(cost, batch, MOST, limit))


def longest_context(plan: Plan, purpose: str, limit: int, *, batch: int) -> Fit:
    """The longest sequence, up to max_seq_len, that fits with `batch` sequences; 1 when not even that does."""
    most = plan.page.model.max_seq_len
    cost = cache(lambda seq: needs(plan, purpose, batch, seq))
    seq = largest(cost, limit, most)
    return Fit(limit, purpose, batch, seq, cost(seq), _beyond(cost, seq, most, limit))


def largest(cost: Callable[[int], int], limit: int, most: int) -> int:
    """The largest n from 1 to `most` with cost(n) <= limit, 1 if there is none; `cost` must not decrease.

    Costs are nearly linear. Each guess interpolates between the last bounds; when that does not halve the interval,
    the next guess is its middle.
    """
    low, high = 1, 2
    if most == 1 or cost(1) > limit:
        return 1
    while cost(high) <= limit:
        if high == most:
            return most
        ahead = _meeting(cost, low, high, limit)
        # Limit the step: where costs are level, interpolation says nothing, and counting a huge size is slow.
        low, high = high, min(most, 2 * high if ahead is None else max(high + 1, min(ahead + 1, 8 * high)))
    while high - low > 1:
        width = high - low
        for guess in (_meeting(cost, low, high, limit), (low + high) // 2):
            if guess is None or high - low == 1:
                continue
            tried = min(max(guess, low + 1), high - 1)
            low, high = (tried, high) if cost(tried) <= limit else (low, tried)
            # Interpolation is exact for linear costs: then the neighbor is the other bound.
            near = tried + 1 if low == tried else tried - 1
            if low < near < high:
                low, high = (near, high) if cost(near) <= limit else (low, near)
            if high - low <= width // 2:
                break
    return low


def _meeting(cost: Callable[[int], int], low: int, high: int, limit: int) -> int | None:
    """Where the line through both bounds meets the limit; None when the line is level."""
    rise = cost(high) - cost(low)
    return None if rise <= 0 else low + (limit - cost(low)) * (high - low) // rise


def _beyond(cost: Callable[[int], int], n: int, most: int, limit: int) -> int | None:
    return cost(n + 1) if n < most and cost(n) <= limit else None
