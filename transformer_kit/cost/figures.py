"""What a card tells: figures of a model and of what it costs."""

from dataclasses import dataclass
from typing import NamedTuple

from transformer_kit.cost.count import Parameters
from transformer_kit.cost.plan import Memory
from transformer_kit.cost.signal import Signal
from transformer_kit.cost.tree import Node


class Flops(NamedTuple):
    """Floating-point operations for each token of a sequence of the card's length."""

    forward_per_token: float
    train_per_token: float
    """Forward and backward, as computed: with activation checkpointing a layer has two forward passes."""


class Decoding(NamedTuple):
    """Bytes of the decode state."""

    bytes_per_token: int
    """What the second token of one row adds."""
    length: int
    """Tokens of a row when it is full."""
    batch: int
    total: int
    """Bytes of `batch` rows of `length` tokens."""


class Loss(NamedTuple):
    """Cross-entropy in nats of fresh weights on random tokens."""

    initial: float | None
    uniform: float
    """ln V: the loss of a model that knows nothing, which fresh weights should be near."""
    skipped: str | None
    """Why there is no initial loss."""


@dataclass(frozen=True)
class Figures:
    """A model and its cost, counted."""

    batch: int
    seq: int
    dtype: str
    precision: str
    """What products are made in: `dtype`, or a lower type in mixed precision."""
    parameters: Parameters
    flops: Flops
    memory: Memory
    state: Decoding
    loss: Loss
    notes: tuple[str, ...]
    parts: tuple[Node, ...]
    signal: Signal | None = None
    """Activations and gradients at the start, where they were asked for."""
    purpose: str = "train"
    """`train`, or `decode`: then nothing is said about training."""
