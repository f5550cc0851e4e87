"""Decoding steps as a CUDA graph: captured once and replayed, without launches from Python.

A GPU runs a step of a small model faster than Python launches its several hundred kernels.
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
"""Least number of remaining tokens for which capture pays."""
FIRST = 256
"""Least capacity in tokens of the first captured step; each later one has twice the length so far."""
TUNED = {"coordinate_descent_tuning": True}
"""Compiler options for products of one row: generated kernels load weights faster than library kernels."""
SHAPES = 64
"""Number of compiled versions of a layer: one or two for each batch size and each capacity."""
_REFUSED = (
    "only steps on a GPU, of a model whose shapes do not depend on its tokens (no positions scaled by the current "
    "length) and whose modules have no hooks, are compiled; leave it out"
)


def captured(
    model: LanguageModel, state: DecodeState, pick: Picker, draws: Tensor, chosen: Tensor, compile: bool = False
) -> "CUDAGraph | None":
    """The remaining steps as a captured graph; None where capture is impossible or does not pay.

    Replay repeats the captured operators, so the model must be prepared for inference, or `compile` must be set.
    `compile` builds kernels for the layers, which takes tens of seconds the first time. Raises ValueError where steps
    to be compiled cannot be captured.
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
    """Whether the state has a static form, and no module has hooks, which replay would skip."""
    return settled(model) and has_static_form(state) and not any(map(hooked, model.modules()))


class CUDAGraph:
    """A captured `StaticStep` on a GPU. Each call replays it and returns the next choices, (2, B), in new memory."""

    def __init__(self, step: StaticStep, compile: bool = False) -> None:
        """`compile` builds kernels for the layers, which takes tens of seconds the first time."""
        self.step, self.compile = step, compile
        self.weights = [p.detach() for p in step.model.parameters()]  # a replay loads them from their fixed address
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
        """Allocate the capacity and run one step, so that libraries initialize and layers compile."""
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
    """How many more tokens the next captured step has capacity for."""
    return max(FIRST - length, length)


@contextmanager
def _compiled(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, layers are compiled; on exit they run eagerly again. Compiled code is kept.

    Private interfaces of torch, tried on 2.13: `_compiled_call_impl`, since `Module.compile` has no inverse, and
    `torch._dynamo.config`, to allow as many shapes. Without `compile` neither is used.
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
    """Inside, work runs on `stream`, ordered after earlier work and before later work of the current stream."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _waits(step: Callable[[], object]) -> bool:
    """Whether `step` synchronizes with the device, as for a value that Python branches on."""
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
