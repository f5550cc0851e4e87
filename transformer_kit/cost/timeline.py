"""A training step as a sequence of stretches with their allocations; two layers determine a stack of any depth."""

from collections.abc import Iterable
from typing import NamedTuple, Self


class Stretch(NamedTuple):
    """A piece of a step."""

    net: int = 0
    """Bytes allocated in it and still alive at its end, less those it freed."""
    peak: int = 0
    """Peak of live bytes in it, relative to its beginning; at least 0."""
    flops: int = 0
    """A multiply-add counts as two."""

    @classmethod
    def of(cls, changes: Iterable[int], flops: int) -> Self:
        """The stretch in which bytes were allocated (above 0) and freed (below 0) in this order."""
        alive = peak = 0
        for change in changes:
            alive += change
            peak = max(peak, alive)
        return cls(alive, peak, flops)

    def then(self, other: "Stretch") -> "Stretch":
        """Both, one after the other."""
        peak = max(self.peak, self.net + other.peak)
        return Stretch(self.net + other.net, peak, self.flops + other.flops)


class Timeline(NamedTuple):
    """One forward and backward pass, in execution order."""

    begin: Stretch
    """Embedding."""
    forward: tuple[Stretch, ...]
    """Each layer, from the first to the last."""
    norm: Stretch
    """Between the last layer and the head."""
    head: Stretch
    """Logits and loss, and their backward pass down to the last layer."""
    backward: tuple[Stretch, ...]
    """Each layer, from the first to the last, although the last one runs first."""
    end: Stretch
    """The rest of the backward pass."""
    forward_flops: int
    """FLOPs of the forward pass alone, including gradients that the loss computes at once."""

    def before_head(self) -> Stretch:
        """Everything before the head."""
        return joined([self.begin, *self.forward, self.norm])

    def whole(self) -> Stretch:
        """All of it."""
        return joined([self.before_head(), self.head, *reversed(self.backward), self.end])


def joined(stretches: Iterable[Stretch]) -> Stretch:
    """All stretches, one after the other."""
    total = Stretch()
    for stretch in stretches:
        total = total.then(stretch)
    return total
