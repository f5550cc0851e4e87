"""Steps on a processor as a program: the calls of which one consists, without the Python between them."""

from operator import is_
from typing import Any

import torch
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
    been fixed. Samplers are asked as ever, for what they do may depend on the step; without them, all is repeated.
    """

    def __init__(self, fixed: Fixed, laid: Laid) -> None:
        self.fixed, self.laid = fixed, laid
        self.weights = _Weights(fixed.model)
        self.step = fixed.read if fixed.pick.samplers else fixed.go
        self._widen()

    def __call__(self) -> Tensor | None:
        if self.fixed.full:
            self._widen()
        if not self._can_go_on():
            return None
        found: Tensor = self.program() if self.program else self._noted()
        self.fixed.count()
        return self.fixed.move(self.fixed.choose(found)) if self.fixed.pick.samplers else found

    def _can_go_on(self) -> bool:
        same = self.weights.same() and self.laid.unwritten() and not torch.is_autocast_enabled("cpu")
        return same and (self.program is not None or self.tries > 0)

    def _widen(self) -> None:
        self.fixed.widen(ROOM)
        self.tape: Tape | None = None
        self.program: Program | None = None
        self.tries = TRIES

    def _noted(self) -> Tensor:
        """A step that is done as ever, and noted; a program, where the one before was alike."""
        with self.laid.active(), Tape() as tape:
            found = self.step()
        self.tries = 0 if tape.obstacle else self.tries - 1
        if self.tape is not None and tape.repeats(self.tape):
            self.program = tape.program(found)
        self.tape = None if self.program else tape  # it holds all that was made on the way
        return found


class _Weights:
    """The parameters and buffers of a model, as they are now."""

    def __init__(self, model: nn.Module) -> None:
        kinds = [kind for m in model.modules() for kind in (m._parameters, m._buffers)]
        known: list[tuple[dict[str, Any], str]] = [(kind, name) for kind in kinds for name in kind]
        self.kinds, self.names = [kind for kind, _ in known], [name for _, name in known]
        self.tensors = list(map(dict.get, self.kinds, self.names))

    def same(self) -> bool:
        """Whether none is another one. What is written into them does not matter: it is read where it is."""
        return all(map(is_, map(dict.get, self.kinds, self.names), self.tensors))
