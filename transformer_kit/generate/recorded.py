"""The steps of decoding recorded: noted once and replayed, so that nothing waits for Python.

On a GPU a record is a CUDA graph, on a processor a program.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from registry.state import DecodeState
from transformer_kit.generate.choose import Picker
from transformer_kit.generate.fast import Laid
from transformer_kit.generate.fixed import Fixed, fixable
from transformer_kit.generate.graph import Graph
from transformer_kit.generate.repeated import Repeated

if TYPE_CHECKING:
    from transformer_kit.model.model import Model

LEAST = {"cuda": 16, "cpu": 32}
"""Tokens still to come below which recording costs more than it saves, where steps are recorded at all."""
_REFUSED = (
    "only steps on a GPU, of a model whose shapes do not depend on its tokens (no experts, no positions scaled by the "
    "current length) and whose modules nobody listens to with hooks, are compiled; leave it out"
)


def recorded(
    model: "Model", state: DecodeState, pick: Picker, draws: Tensor, chosen: Tensor, laid: Laid, compile: bool = False
) -> Graph | Repeated | None:
    """The rest of the steps, recorded; None where they cannot be, or where it does not pay.

    `compile` builds kernels for the layers, which takes tens of seconds the first time. Raises ValueError where steps
    that would be compiled cannot be recorded.
    """
    device = chosen.device.type
    possible = device in LEAST and fixable(model, state) and not (device == "cpu" and _is_compiled(model))
    if compile and not (possible and device == "cuda"):
        raise ValueError(f"compile: {_REFUSED}")
    if not possible or draws.shape[1] < LEAST[device]:
        return None
    fixed = Fixed(model, state, pick, draws, chosen)
    if device == "cpu":
        return Repeated(fixed, laid)
    graph = Graph(fixed, compile)
    if graph.obstacle is None:
        return graph
    if compile:
        raise ValueError(f"compile: {_REFUSED}")
    return None


def _is_compiled(model: nn.Module) -> bool:
    """Whether someone compiled some of it, who wants that to run."""
    return any(module._compiled_call_impl is not None for module in model.modules())
