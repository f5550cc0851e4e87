"""What all schedules begin with, and how far one is after that."""

from registry.options import Natural, Options


class WarmUp(Options):
    """What every schedule chooses."""

    warmup: Natural = 0
    """Steps of linear growth before the peak."""


def warm_up(step: int, warmup: int) -> float:
    """Grows by 1/(warmup + 1) a step, from the first, and stays at 1 from step `warmup` on."""
    return min(1.0, (step + 1) / (warmup + 1))


def progress(step: int, steps: int, warmup: int) -> float:
    """Share of the steps after the warm-up that are behind: 0 at the peak, 1 when the run is over."""
    return min(1.0, max(0, step - warmup) / max(1, steps - warmup))
