"""Shared by schedules: linear warm-up, and progress after it."""

from registry.options import Natural, Options


class WarmUp(Options):
    """Options of every schedule."""

    warmup: Natural = 0
    """Number of linear warm-up steps."""


def warm_up(step: int, warmup: int) -> float:
    """Grows by 1/(warmup + 1) a step, from the first, and stays at 1 from step `warmup` on."""
    return min(1.0, (step + 1) / (warmup + 1))


def progress(step: int, steps: int, warmup: int) -> float:
    """Share of the steps after the warm-up that are behind: 0 at the peak, 1 when the run is over."""
    return min(1.0, max(0, step - warmup) / max(1, steps - warmup))
