"""Draws docs/swap.png, the picture of README's "Swap one word": `python -m docs.swap runs docs/swap.png`.

The folder `runs` holds the six runs that README trains, `sinusoidal-0` to `rope-2`. The last validation losses are
printed, as rows of README's table.
"""

import sys
from pathlib import Path
from statistics import mean

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from transformer_kit.train.plot import read, smooth

WORDS = {"sinusoidal": "tab:blue", "rope": "tab:orange"}
SEEDS = (0, 1, 2)


def main(runs: Path, picture: Path) -> int:
    """Draw and print; the number to exit with."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for word, color in WORDS.items():
        records = [read(runs / f"{word}-{seed}" / "metrics.jsonl") for seed in SEEDS]
        curves = [smooth([record["loss"] for record in run], 6) for run in records]
        steps = range(1, len(curves[0]) + 1)
        axes.fill_between(steps, *_bounds(curves), color=color, alpha=0.3, linewidth=0)
        axes.plot(steps, [mean(values) for values in zip(*curves, strict=True)], color=color, label=f"position: {word}")
        last = [run[-1]["val_loss"] for run in records]
        cells = " | ".join(f"{value:.2f}" for value in [*last, mean(last)])
        sys.stdout.write(f"| `{word}` | {cells} |\n")
    axes.set(xlabel="step", ylabel="training loss (nats per byte)", title="mean of three seeds, and from least to most")
    axes.grid(alpha=0.3)
    axes.legend()
    FigureCanvasAgg(figure).print_png(str(picture))
    return 0


def _bounds(curves: list[list[float]]) -> tuple[list[float], list[float]]:
    """The least and the most of the curves at each step."""
    together = list(zip(*curves, strict=True))
    return [min(values) for values in together], [max(values) for values in together]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
