"""Fair timing on a machine with other load: candidates take turns, round by round.

Other load in a round slows all candidates, so the ratio of medians is fair where absolute times are not.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Timed = Callable[[int], float]
"""Does the work of a round once and returns its time in seconds."""


def interleaved(
    work: Mapping[str, Timed], rounds: int, warmup: int = 2, before: Callable[[int], object] | None = None
) -> dict[str, list[float]]:
    """Seconds of each round for each candidate; who begins changes from round to round. Warm-up rounds are dropped.

    `before` is called with the number of each round, which is negative for a warm-up round.
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
    """Time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def middle(seconds: Sequence[float]) -> float:
    """The median."""
    return statistics.median(seconds)
