"""Fair timing on a machine that is never quiet: candidates take turns, round by round.

What slows a round slows everyone in it, so the ratio of medians is fair where absolute times are not.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Timed = Callable[[int], float]
"""Does the work of a round once and returns the seconds that count."""


def interleaved(
    work: Mapping[str, Timed], rounds: int, warmup: int = 2, before: Callable[[int], object] | None = None
) -> dict[str, list[float]]:
    """Seconds of each round for each candidate; who begins changes from round to round. Warm-up rounds do not count.

    What is to be done `before` a round is told its number, which is negative where it does not count.
    """
    names = list(work)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        if before is not None:
            before(turn)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken = work[name](turn)
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def clock(device: torch.device) -> float:
    """Seconds now, once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def middle(seconds: Sequence[float]) -> float:
    """The median."""
    return statistics.median(seconds)
