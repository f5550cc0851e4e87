"""Steps on a GPU as one CUDA graph, and kernels built for them.

A step of a small model takes a GPU less time than Python needs to name its several hundred kernels.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from transformer_kit.generate.fixed import Fixed

FIRST = 256
"""Tokens that the first recorded step has room for, at least; each after it has room for twice what there is."""
TUNED = {"coordinate_descent_tuning": True}
"""What makes the compiler write products with one row itself, which read weights faster than libraries do."""
SHAPES = 64
"""Versions of a layer that may be compiled: one or two for each number of rows and each room."""


class Graph:
    """`Fixed` on a GPU, recorded and replayed. Each call gives what is chosen next, (2, B), in memory of its own."""

    def __init__(self, fixed: Fixed, compile: bool = False) -> None:
        """`compile` builds kernels for the layers, which takes tens of seconds the first time."""
        self.fixed, self.compile = fixed, compile
        self.weights = [p.detach() for p in fixed.model.parameters()]  # what is replayed reads them where they are
        with torch.cuda.device(fixed.chosen.device):
            self.stream = torch.cuda.Stream()
            self._prepare()
            with aside(self.stream):
                self.obstacle = "Python waits for the device" if _waits(self._step) else None
            if self.obstacle is None:
                self._record()

    def __call__(self) -> Tensor:
        with torch.cuda.device(self.stream.device):
            if self.fixed.full:
                self._prepare()
                self._record()
            self.graph.replay()
            self.fixed.count()
            return self.fixed.chosen.clone()

    def _prepare(self) -> None:
        """Make room, and do a step there once: libraries get ready, and what is compiled is compiled."""
        self.fixed.widen(more(self.fixed.state.length))
        with aside(self.stream):
            self._step()

    def _step(self) -> Tensor:
        with _compiled(self.fixed.model.layers) if self.compile else nullcontext():
            return self.fixed.step()

    def _record(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.fixed.move(self._step())


def more(seen: int) -> int:
    """For how many more tokens than were seen there is room."""
    return max(FIRST - seen, seen)


@contextmanager
def _compiled(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, layers are compiled; then as they were. What was compiled is kept."""
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
    """What is done inside comes after what was asked for before, and before what is asked for later."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def _waits(step: Callable[[], object]) -> bool:
    """Whether Python waits for the device in it, as for the numbers of tokens that go to each expert."""
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
