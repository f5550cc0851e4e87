"""Decoding steps on a GPU as a CUDA graph: captured once and replayed, so that nothing waits for Python.

A step of a small model takes a GPU less time than Python needs to launch its several hundred kernels.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from registry.state import DecodeState
from transformer_kit.generate.choose import Picker
from transformer_kit.generate.protocol import LanguageModel
from transformer_kit.generate.reading import settled
from transformer_kit.generate.static_step import StaticStep
from transformer_kit.transform.linear_layers import hooked
from transformer_kit.transform.static_cache import has_static_form

LEAST = 16
"""Tokens still to come below which capturing costs more than it saves."""
FIRST = 256
"""Tokens that the first captured step has room for, at least; each after it has room for twice what there is."""
TUNED = {"coordinate_descent_tuning": True}
"""Options of the compiler with which it writes products of one row itself, which read weights faster than libraries."""
SHAPES = 64
"""Versions of a layer that may be compiled: one or two for each number of rows and each room."""
_REFUSED = (
    "only steps on a GPU, of a model whose shapes do not depend on its tokens (no positions scaled by the current "
    "length) and whose modules have no hooks, are compiled; leave it out"
)


def captured(
    model: LanguageModel, state: DecodeState, pick: Picker, draws: Tensor, chosen: Tensor, compile: bool = False
) -> "CUDAGraph | None":
    """The rest of the steps, captured; None where they cannot be, or where it does not pay.

    What is replayed computes what the captured step did, so the model is one that was prepared for inference, or
    `compile` asks for it: that builds kernels for the layers, which takes tens of seconds the first time. Raises
    ValueError where steps that would be compiled cannot be captured.
    """
    possible = chosen.is_cuda and can_be_captured(model, state)
    if compile and not possible:
        raise ValueError(f"compile: {_REFUSED}")
    asked = compile or model.prepared
    if not (possible and asked) or draws.shape[1] < LEAST:
        return None
    graph = CUDAGraph(StaticStep(model, state, pick, draws, chosen), compile)
    if graph.obstacle is None:
        return graph
    if compile:
        raise ValueError(f"compile: {_REFUSED}")
    return None


def can_be_captured(model: LanguageModel, state: DecodeState) -> bool:
    """Whether the state has a static form, and no module has hooks, which are not replayed."""
    return settled(model) and has_static_form(state) and not any(map(hooked, model.modules()))


class CUDAGraph:
    """A `StaticStep` on a GPU, captured and replayed. Each call gives what is chosen next, (2, B), in new memory."""

    def __init__(self, step: StaticStep, compile: bool = False) -> None:
        """`compile` builds kernels for the layers, which takes tens of seconds the first time."""
        self.step, self.compile = step, compile
        self.weights = [p.detach() for p in step.model.parameters()]  # what is replayed reads them where they are
        with torch.cuda.device(step.chosen.device):
            self.stream = torch.cuda.Stream()
            self._prepare()
            with aside(self.stream):
                self.obstacle = "Python waits for the device" if _waits(self._step) else None
            if self.obstacle is None:
                self._capture()

    def __call__(self) -> Tensor:
        with torch.cuda.device(self.stream.device):
            if self.step.is_full:
                self._prepare()
                self._capture()
            self.graph.replay()
            self.step.count()
            return self.step.chosen.clone()

    def _prepare(self) -> None:
        """Make room, and do a step there once: libraries get ready, and what is compiled is compiled."""
        self.step.widen(more(self.step.state.length))
        with aside(self.stream):
            self._step()

    def _step(self) -> Tensor:
        with _compiled(self.step.model.blocks()) if self.compile else nullcontext():
            return self.step.next()

    def _capture(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.step.advance(self._step())


def more(length: int) -> int:
    """For how many more tokens than are held there is room."""
    return max(FIRST - length, length)


@contextmanager
def _compiled(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, layers are compiled; then as they were. What was compiled is kept.

    Private interfaces of torch, tried on 2.13: `_compiled_call_impl`, since `Module.compile` has no way back, and
    `torch._dynamo.config`, which allows as many shapes. Without `compile` neither is used.
    """
    before = [(layer, layer._compiled_call_impl) for layer in layers]
    for layer, _ in before:
        layer.compile(dynamic=False, options=TUNED)
    try:
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            yield
    finally:
        for layer, call in before:
            layer._compiled_call_impl = call


@contextmanager
def aside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Inside, work goes to `stream`, after what was launched before and before what is launched later."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _waits(step: Callable[[], object]) -> bool:
    """Whether Python waits for the device in `step`, as for a value that it branches on."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    return False
