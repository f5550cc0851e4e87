"""Steps on a processor as a program: the calls that one of them makes, without the Python between them."""

from operator import is_
from typing import Any

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

    None where steps cannot be repeated, and once a weight has become another one: the state is then as if it had never
    been fixed.
    """

    def __init__(self, fixed: Fixed, laid: Laid) -> None:
        self.fixed, self.laid = fixed, laid
        self.weights = _Weights(fixed.model)
        self._widen()

    def __call__(self) -> Tensor | None:
        if self.fixed.full:
            self._widen()
        if not self.weights.same() or not self.laid.fresh() or not (self.program or self.tries):
            self.fixed.state.place = None
            return None
        if self.program:
            self.program()
        else:
            self._note()
        self.fixed.state.seen += 1
        return self.fixed.chosen.clone()

    def _widen(self) -> None:
        self.fixed.widen(ROOM)
        self.tape: Tape | None = None
        self.program: Program | None = None
        self.tries = TRIES

    def _note(self) -> None:
        """A step like any other, noted; a program, where the one before was the same."""
        with self.laid.active(), Tape() as tape:
            self.fixed.move(self.fixed.step())
        self.tries = 0 if tape.obstacle else self.tries - 1
        if self.tape is not None and tape.repeats(self.tape):
            self.program = Program(tape.calls)
        self.tape = None if self.program else tape  # it holds all that the step made


class _Weights:
    """The parameters and buffers of a model, as they are now."""

    def __init__(self, model: nn.Module) -> None:
        kinds = [kind for m in model.modules() for kind in (m._parameters, m._buffers)]
        known = [(kind, name) for kind in kinds for name in kind]
        self.kinds: list[dict[str, Any]] = [kind for kind, _ in known]
        self.names = [name for _, name in known]
        self.tensors = [kind[name] for kind, name in known]

    def same(self) -> bool:
        """Whether none is another one. What is written into them does not matter: it is read where it is."""
        return all(map(is_, map(dict.get, self.kinds, self.names), self.tensors))
