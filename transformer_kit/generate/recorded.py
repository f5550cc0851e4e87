"""A step of decoding recorded once and replayed (CUDA graphs), so that a GPU does not wait for Python.

A step of a small model takes a GPU less time than Python needs to name its several hundred kernels. All of it is
recorded, from the token that goes in to the token that is chosen. Shapes cannot change between replays, so attention
looks at more slots of the decode state than are filled; when they are, a step with twice as many is recorded.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from registry.context import State
from registry.contracts import Position
from transformer_kit.generate.choose import Pick

if TYPE_CHECKING:
    from transformer_kit.model.model import Model

LEAST = 16
"""Tokens still to come below which recording costs more than it saves."""
FIRST = 256
"""Tokens that the first recorded step has room for, at least."""

TUNED = {"coordinate_descent_tuning": True}
"""What makes the compiler write products with one row itself, which read weights faster than libraries do."""
SHAPES = 64
"""Versions of a layer that may be compiled: one or two for each number of rows and each room."""
_REFUSED = (
    "only steps on a GPU, of a model whose shapes do not depend on its tokens (no experts, no positions scaled by the "
    "current length), are compiled; leave it out"
)


class Fixed:
    """One step whose shapes stay: reads the token chosen last, chooses the next."""

    def __init__(
        self, model: "Model", state: State, pick: Pick, draws: Tensor, chosen: Tensor, compile: bool = False
    ) -> None:
        """draws (B, steps); chosen (2, B): the first of the steps, after which `state` stands."""
        self.model, self.state, self.pick, self.draws, self.compile = model, state, pick, draws, compile
        self.chosen = chosen.clone()
        self.place = torch.tensor([state.seen], device=chosen.device)
        self.turn = torch.ones_like(self.place)

    def widen(self) -> None:
        """Make room for as many tokens as there are, or for FIRST of them."""
        self.state.fix(self.place, min(max(FIRST, 2 * self.state.seen), self.state.capacity))

    def step(self) -> Tensor:
        """What is chosen next, (2, B). Nothing moves: doing it twice is doing it once."""
        tokens, draw = self.chosen[0][:, None], self.draws.index_select(1, self.turn)[:, 0]
        with compiled(self.model.layers) if self.compile else nullcontext():
            logits = self.model(tokens, state=self.state, last=True).logits
        return self.pick(logits[:, -1], draw)

    def move(self, chosen: Tensor) -> None:
        """Go on to the next token, on the device."""
        self.chosen.copy_(chosen)
        self.place.add_(1)
        self.turn.add_(1)


class Recorded:
    """`Fixed`, replayed. Each call gives what is chosen next, (2, B), in memory of its own."""

    def __init__(self, fixed: Fixed, stream: torch.cuda.Stream) -> None:
        """`stream`: where a step was done before, so that libraries are prepared for it."""
        self.fixed, self.stream = fixed, stream
        self.weights = [p.detach() for p in fixed.model.parameters()]  # what is replayed reads them where they are
        self._record()

    def __call__(self) -> Tensor:
        with torch.cuda.device(self.stream.device):
            if self.fixed.state.seen >= self.fixed.state.reach:
                self.fixed.widen()
                with aside(self.stream):
                    self.fixed.step()  # for what is compiled anew for more tokens
                self._record()
            self.graph.replay()
            self.fixed.state.seen += 1
            return self.fixed.chosen.clone()

    def _record(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.fixed.move(self.fixed.step())


def recorded(
    model: "Model", state: State, pick: Pick, draws: Tensor, chosen: Tensor, compile: bool = False
) -> Recorded | None:
    """The rest of the steps, recorded; None where they cannot be, or where it does not pay.

    `compile` builds kernels for the layers, which takes tens of seconds the first time. Raises ValueError where steps
    that would be compiled cannot be recorded.
    """
    possible = chosen.device.type == "cuda" and fixable(model, state)
    if compile and not possible:
        raise ValueError(f"compile: {_REFUSED}")
    if not possible or draws.shape[1] < LEAST:
        return None
    with torch.cuda.device(chosen.device):
        fixed, stream = Fixed(model, state, pick, draws, chosen, compile), torch.cuda.Stream()
        fixed.widen()
        with aside(stream):
            fixed.step()
            waits = _waits(fixed.step)
        if not waits:
            return Recorded(fixed, stream)
    if compile:
        raise ValueError(f"compile: {_REFUSED}")
    state.place = None
    return None


@contextmanager
def compiled(layers: Iterable[nn.Module]) -> Iterator[None]:
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


def fixable(model: "Model", state: State) -> bool:
    """Whether every part of the model knows steps of fixed shapes."""
    settled = all(m.settled for m in model.modules() if isinstance(m, Position))
    return settled and all(getattr(layer, "fixable", False) for layer in state.layers)


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
