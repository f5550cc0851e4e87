"""What a model takes over from a trained folder, tensor by tensor, and how that is told."""

import re
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Transfer:
    """What starts from where."""

    differences: list[str]
    """Where the two specs differ: `model.dropout: 0.1, now 0.0`."""
    carried: list[str]
    """Tensors that start from the folder's."""
    fresh: list[str]
    """Tensors of the model that start anew."""
    dropped: list[str]
    """Tensors of the folder that the model has no use for."""

    def text(self) -> str:
        """Everything, in a few lines."""
        named = {"carried over": self.carried, "starting anew": self.fresh, "left behind": self.dropped}
        lines = [f"the model differs from the trained one: {', '.join(self.differences)}"]
        lines += [f"{how}: {', '.join(folded(names))}" for how, names in named.items() if names]
        return "\n  ".join(lines)


def folded(names: list[str]) -> list[str]:
    """The names, those that differ by a layer's number as one: `layers.0-3,7.ffn.up.weight`."""
    layers: dict[str, list[int]] = {}
    for name in names:
        found = re.fullmatch(r"layers\.(\d+)\.(.*)", name)
        layers.setdefault(found[2] if found else name, []).extend([int(found[1])] if found else [])
    return [f"layers.{_ranges(numbers)}.{name}" if numbers else name for name, numbers in layers.items()]


def _ranges(numbers: list[int]) -> str:
    """Numbers in order, neighbours as a range."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
