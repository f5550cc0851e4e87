"""Steps on a processor as a program: the calls that one of them makes, without the Python between them."""

from operator import is_

from torch import Tensor, nn

from transformer_kit.generate.fast import Laid
from transformer_kit.generate.fixed import Fixed
from transformer_kit.generate.tape import Program, Tape

ROOM = 128
"""Tokens that a program has room for: fewer are outgrown sooner, more are looked at in vain."""
TRIES = 3
"""Steps of one room that are noted, at most, until two are alike."""


class Repeated:
    """`Fixed`, noted twice and repeated. Each call gives what is chosen next, (2, B), in memory of its own.

    Where there is an `obstacle` there will be no program, and each step is done as `Fixed` does it; so are all that come
    after a weight became another one.
    """

    def __init__(self, fixed: Fixed, laid: Laid) -> None:
        """The first step is done here, and waits to be asked for."""
        self.fixed, self.laid = fixed, laid
        self.weights = _Weights(fixed.model)
        self.changed = False
        self._widen()
        self.obstacle = self._noted().obstacle
        self.ahead = True

    def __call__(self) -> Tensor:
        if not self.ahead:
            if self.fixed.full:
                self._widen()
            self._go_on()
        self.ahead = False
        self.fixed.state.seen += 1
        return self.fixed.chosen.clone()

    def _widen(self) -> None:
        self.fixed.widen(ROOM)
        self.tape: Tape | None = None
        self.program: Program | None = None
        self.tries = TRIES

    def _go_on(self) -> None:
        self.changed = self.changed or not (self.laid.fresh() and self.weights.same())
        if self.program is not None and not self.changed:
            self.program()
        elif self.tries and not self.changed:
            self._noted()
        else:
            self._step()

    def _noted(self) -> Tape:
        self.tries -= 1
        with Tape() as tape:
            self._step()
        if self.tape is not None and tape.repeats(self.tape):
            self.program, self.tries = Program(tape.calls), 0
        self.tape = tape if self.tries else None  # it holds what the step made
        return tape

    def _step(self) -> None:
        with self.laid.active():
            self.fixed.move(self.fixed.step())


class _Weights:
    """The parameters and buffers of a model, as they are now."""

    def __init__(self, model: nn.Module) -> None:
        kinds = [kind for m in model.modules() for kind in (m._parameters, m._buffers)]
        self.owners, self.names, self.tensors = (
            list(column) for column in zip(*((kind, name, kind[name]) for kind in kinds for name in kind), strict=True)
        )

    def same(self) -> bool:
        """Whether none is another one. What is written into them does not matter: it is read where it is."""
        return all(map(is_, map(dict.get, self.owners, self.names), self.tensors))
