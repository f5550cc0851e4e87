"""The learning rates of a run."""

from transformer_kit.spec.schema import RunSpec

LOOKED = 100_000
"""Number of steps to check; a longer run is sampled evenly."""
NEAR = 0.999
"""Fraction of the peak that counts as the peak in a sampled run."""


def note(spec: RunSpec) -> str | None:
    """A note for a run whose learning rate never reaches its peak; None for others."""
    steps, schedule = spec.train.steps, spec.schedule.part(spec.schedule)
    looked = range(0, steps, -(-steps // LOOKED))
    reached = max(schedule.scale(step, steps) for step in (*looked, steps - 1))
    if reached >= (1.0 if len(looked) == steps else NEAR):
        return None
    warmup = getattr(spec.schedule, "warmup", 0)
    why = f", for `schedule.warmup` is {warmup:,}" if warmup >= steps else ""
    return f"in {steps:,} steps the learning rate reaches at most {reached:.1%} of its peak{why}"
