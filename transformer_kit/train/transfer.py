"""Which tensors a model loads from a trained folder, and the report about it."""

import re
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Transfer:
    """Comparison of a model with a trained folder."""

    differences: list[str]
    """Differences of the two specs: `model.dropout: 0.1, now 0.0`."""
    carried: list[str]
    """Tensors loaded from the folder."""
    fresh: list[str]
    """Tensors of the model that keep their initial weights."""
    dropped: list[str]
    """Tensors of the folder without a counterpart in the model."""

    def text(self) -> str:
        """The comparison in a few lines."""
        named = {"loaded": self.carried, "newly initialized": self.fresh, "not used": self.dropped}
        lines = [f"the model differs from the trained one: {', '.join(self.differences)}"]
        lines += [f"{how}: {', '.join(folded(names))}" for how, names in named.items() if names]
        return "\n  ".join(lines)


def folded(names: list[str]) -> list[str]:
    """The names, with layer numbers grouped: `layers.0-3,7.ffn.up.weight`."""
    layers: dict[str, list[int]] = {}
    for name in names:
        found = re.fullmatch(r"layers\.(\d+)\.(.*)", name)
        layers.setdefault(found[2] if found else name, []).extend([int(found[1])] if found else [])
    return [f"layers.{_ranges(numbers)}.{name}" if numbers else name for name, numbers in layers.items()]


def _ranges(numbers: list[int]) -> str:
    """Numbers in order, neighbors as a range."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
