"""A candidate of a comparison: a module and three ways to use it, each the best that its documentation offers."""

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
    """tokens -> logits of the next token after a prompt."""
    decode: Callable[[Tensor, int], Iterator[Any]]
    """(tokens, count) -> `count` ids after a prompt, greedy, one step at a time."""
    compiled: Callable[[Tensor, int], Iterator[Any]] | None = None
    """`decode`, compiled in its own way; None compiles its layers."""
    optimizer_in_backward: bool = False
    """Whether the optimizer steps in the backward pass, without clipping."""
    cached: bool = True
    """Whether autocast caches cast weights until the end of a training pass, as it does by default."""
