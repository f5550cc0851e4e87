"""A training step as a row of stretches, each with what it allocates, so that a deep stack follows from two layers."""

from collections.abc import Iterable
from typing import NamedTuple, Self


class Stretch(NamedTuple):
    """A piece of a step."""

    net: int = 0
    """Bytes that are alive at its end and were not at its beginning."""
    peak: int = 0
    """The most bytes that were alive in it, beyond those at its beginning; at least 0."""
    flops: int = 0
    """A multiplication and an addition are two."""

    @classmethod
    def of(cls, changes: Iterable[int], flops: int) -> Self:
        """The stretch in which bytes were taken (above 0) and given back (below 0) in this order."""
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
    """One forward and backward pass, in the order in which it runs."""

    begin: Stretch
    """Embedding."""
    forward: tuple[Stretch, ...]
    """Each layer, the first first."""
    norm: Stretch
    """Between the last layer and the head."""
    head: Stretch
    """Logits and loss, and their backward pass down to the last layer."""
    backward: tuple[Stretch, ...]
    """Each layer, the first first, though the last is the first to run."""
    end: Stretch
    """The rest of the backward pass."""
    forward_flops: int
    """Of the forward pass alone; where the loss takes its gradients at once, they are a part of it."""

    def before_head(self) -> Stretch:
        """What has run when the head begins."""
        return joined([self.begin, *self.forward, self.norm])

    def whole(self) -> Stretch:
        """All of it."""
        return joined([self.before_head(), self.head, *reversed(self.backward), self.end])


def joined(stretches: Iterable[Stretch]) -> Stretch:
    """All of them, one after the other."""
    total = Stretch()
    for stretch in stretches:
        total = total.then(stretch)
    return total
