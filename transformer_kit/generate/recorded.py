"""The steps of decoding on a GPU as a CUDA graph: captured once and replayed, so that nothing waits for Python."""

from typing import TYPE_CHECKING

from torch import Tensor

from registry.state import DecodeState
from transformer_kit.generate.choose import Picker
from transformer_kit.generate.fixed import Fixed, fixable
from transformer_kit.generate.graph import Graph

if TYPE_CHECKING:
    from transformer_kit.model.model import Model

LEAST = 16
"""Tokens still to come below which capturing costs more than it saves."""
_REFUSED = (
    "only steps on a GPU, of a model whose shapes do not depend on its tokens (no experts, no positions scaled by the "
    "current length) and whose modules nobody listens to with hooks, are compiled; leave it out"
)


def recorded(
    model: "Model", state: DecodeState, pick: Picker, draws: Tensor, chosen: Tensor, compile: bool = False
) -> Graph | None:
    """The rest of the steps, captured; None where they cannot be, or where it does not pay.

    `compile` builds kernels for the layers, which takes tens of seconds the first time. Raises ValueError where steps
    that would be compiled cannot be captured.
    """
    possible = chosen.is_cuda and fixable(model, state)
    if compile and not possible:
        raise ValueError(f"compile: {_REFUSED}")
    if not possible or draws.shape[1] < LEAST:
        return None
    graph = Graph(Fixed(model, state, pick, draws, chosen), compile)
    if graph.obstacle is None:
        return graph
    if compile:
        raise ValueError(f"compile: {_REFUSED}")
    return None
