"""Plot of the loss over the steps."""

import math
import os
from pathlib import Path

from registry import untrusted

LARGEST = 1e300
SMOOTH = 0.02
"""Fraction of the run over which the bold line averages."""


def draw(metrics: Path, picture: Path) -> bool:
    """Plot the records of `metrics` (JSON lines) into `picture`; False without records."""
    records = read(metrics)
    if not records:
        return False
    # Imported here: the import takes longer than a small run's first steps. This backend needs no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    steps = [r["step"] for r in records]
    losses = [r["loss"] for r in records]
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
    axes.plot(steps, smooth(losses, max(1.0, SMOOTH * len(losses))), color="tab:blue", label="training")
    measured = [(r["step"], r["val_loss"]) for r in records if "val_loss" in r]
    if measured:
        axes.plot(*zip(*measured, strict=True), color="tab:orange", marker="o", markersize=3, label="validation")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    name = os.fsencode(picture.resolve().parent.name).decode("utf-8", "replace")
    axes.set_title(name, parse_math=False)  # a folder may be called $a_{$
    axes.grid(alpha=0.3)
    axes.legend()
    draft = picture.with_name(f".{picture.name}.draft")
    FigureCanvasAgg(figure).print_png(os.fspath(draft))
    draft.replace(picture)
    return True


def read(metrics: Path) -> list[dict[str, float]]:
    """The records of a file of JSON lines, in order; incomplete lines are skipped."""
    if not metrics.is_file():
        return []
    records = (_record(line) for line in metrics.read_text("utf-8", errors="replace").splitlines())
    return [r for r in records if r is not None]


def smooth(values: list[float], span: float) -> list[float]:
    """Exponential average over about `span` values, with bias correction."""
    keep, average, weight, result = math.exp(-1 / span), 0.0, 0.0, []
    for value in values:
        average = keep * average + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        result.append(average / weight)
    return result


def _record(line: str) -> dict[str, float] | None:
    try:
        value = untrusted.parsed(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or not all(_is_number(value.get(key)) for key in ("step", "loss")):
        return None
    return {key: inner for key, inner in value.items() if _is_number(inner)}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
