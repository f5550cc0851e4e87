"""The figures of a cost report."""

from dataclasses import dataclass
from typing import NamedTuple

from transformer_kit.cost.count import Parameters
from transformer_kit.cost.plan import Memory
from transformer_kit.cost.signal import Signal
from transformer_kit.cost.tree import Node


class Flops(NamedTuple):
    """Floating-point operations for each token of a sequence of the report's length."""

    forward_per_token: float
    train_per_token: float
    """FLOPs of a forward and backward pass as computed: activation checkpointing runs a layer's forward pass twice."""


class Decoding(NamedTuple):
    """Bytes of the decode state."""

    bytes_per_token: int
    """Bytes that the second token of a sequence adds."""
    length: int
    """Tokens at which the state of a sequence stops growing."""
    batch: int
    total: int
    """Bytes for `batch` sequences of `length` tokens."""


class Loss(NamedTuple):
    """Cross-entropy in nats of an untrained model on random tokens."""

    initial: float | None
    uniform: float
    """ln V: the loss of uniform predictions. An initial loss should be near it."""
    skipped: str | None
    """Reason why there is no initial loss."""


@dataclass(frozen=True)
class Figures:
    """A model and its cost, counted."""

    batch: int
    seq: int
    dtype: str
    precision: str
    """Type of matrix products: `dtype`, or a lower type in mixed precision."""
    parameters: Parameters
    flops: Flops
    memory: Memory
    state: Decoding
    loss: Loss
    notes: tuple[str, ...]
    parts: tuple[Node, ...]
    signal: Signal | None = None
    """Activations and gradients at initialization, when requested."""
    purpose: str = "train"
    """`train`, or `decode` for a report without training."""
