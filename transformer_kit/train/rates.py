"""What learning rates a run has."""

from transformer_kit.spec.schema import RunSpec

LOOKED = 100_000
"""Steps that are looked at; of a longer run evenly spread ones."""
NEAR = 0.999
"""Share of the peak that counts as the peak where not every step is looked at."""


def note(spec: RunSpec) -> str | None:
    """What to say of a run that ends before its learning rate was at the peak; None for others."""
    steps, schedule = spec.train.steps, spec.schedule.part(spec.schedule)
    looked = range(0, steps, -(-steps // LOOKED))
    reached = max(schedule.scale(step, steps) for step in (*looked, steps - 1))
    if reached >= (1.0 if len(looked) == steps else NEAR):
        return None
    warmup = getattr(spec.schedule, "warmup", 0)
    why = f", for `schedule.warmup` is {warmup:,}" if warmup >= steps else ""
    return f"in {steps:,} steps the learning rate reaches at most {reached:.1%} of its peak{why}"
