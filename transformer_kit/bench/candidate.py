"""What is measured: a module and three ways to use it, each the best that its own documentation offers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Candidate:
    """A model and the ways to use it. Tokens are (B, T)."""

    name: str
    module: nn.Module
    vocab: int
    loss: Callable[[Tensor, Tensor], Tensor]
    """(tokens, targets) -> mean cross-entropy, for training."""
    prefill: Callable[[Tensor], Any]
    """tokens -> logits of what follows a prompt."""
    decode: Callable[[Tensor, int], Iterator[Any]]
    """(tokens, count) -> `count` ids after a prompt, the likeliest each time, one step at a time."""
    compiled: Callable[[Tensor, int], Iterator[Any]] | None = None
    """`decode`, compiled its own way; where there is none, its layers are compiled."""
    optimizer_in_backward: bool = False
    """Whether the optimizer steps in the backward pass, without clipping."""
    cached: bool = True
    """Whether autocast keeps the weights that it casts until the end of a pass in training, as it does by default."""
