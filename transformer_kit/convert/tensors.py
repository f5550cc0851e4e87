"""The mapping between checkpoint tensors and kit tensors for one model: rules with layers and experts filled in."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.layout import Op
from transformer_kit.convert.schema import Rule

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Move:
    """A mapping from some checkpoint tensors (`theirs`) to some kit tensors (`ours`), or to one expert of them."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    ops: tuple[Op, ...]
    expert: int | None = None
    """Index of the expert within our stacked tensors; None for the whole tensors."""
    part: tuple[int, int, bool] | None = None
    """For stacked tensors of theirs: expert index, number of experts, and whether they are folded into rows."""

    @property
    def made(self) -> set[tuple[str, int | None]]:
        """The kit tensors that the move fills, each with its expert index."""
        return {(name, self.expert) for name in self.ours}

    def own(self, ours: Mapping[str, Tensor]) -> list[Tensor]:
        """The move's kit tensors, out of `ours`."""
        return [ours[n] if self.expert is None else ours[n][self.expert] for n in self.ours]

    def own_shapes(self, shapes: Mapping[str, Shape]) -> list[Shape]:
        """The shapes of the move's kit tensors, out of `shapes`."""
        return [shapes[n] if self.expert is None else shapes[n][1:] for n in self.ours]


def moves(declaration: Declaration, shapes: Mapping[str, Shape], layers: int) -> list[Move]:
    """Every move for a model with tensors of `shapes`. Rules for tensors that the model lacks are skipped."""
    found: list[Move] = []
    covered: set[tuple[str, int | None]] = set()
    for label, given in declaration.tensors.items():
        rule = Rule(theirs=[label], ours=[given]) if isinstance(given, str) else given
        for move in _instances(rule, shapes, layers):
            if not covered & move.made and all(name in shapes for name in move.ours):
                covered |= move.made
                found.append(move)
    return found


def alternatives(declaration: Declaration, shapes: Mapping[str, Shape], layers: int, present: set[str]) -> list[Move]:
    """Like `moves`; among several rules for a tensor, choose the one whose tensors are `present`."""
    rules = {
        label: given
        for label, given in declaration.tensors.items()
        if any(
            n in present
            for n in _names(Rule(theirs=[label], ours=[given]) if isinstance(given, str) else given, layers)
        )
    }
    first = moves(declaration.model_copy(update={"tensors": rules}), shapes, layers)
    covered = {made for move in first for made in move.made}
    return first + [m for m in moves(declaration, shapes, layers) if not covered & m.made]


def _names(rule: Rule, layers: int) -> Iterator[str]:
    for i in range(layers):
        yield from (name.replace("{i}", str(i)).replace("{e}", "0") for name in rule.theirs)


def _instances(rule: Rule, shapes: Mapping[str, Shape], layers: int) -> Iterator[Move]:
    spread = any("{i}" in name for name in rule.theirs + rule.ours)
    for i in range(layers) if spread else [0]:
        theirs = [n.replace("{i}", str(i)) for n in rule.theirs]
        ours = [n.replace("{i}", str(i)) for n in rule.ours]
        stacked = [op for op in rule.ops if op == "unstack" or (isinstance(op, dict) and "fold" in op)]
        if not stacked and not any("{e}" in name for name in theirs):
            yield Move(tuple(theirs), tuple(ours), tuple(rule.ops))
            continue
        rest = tuple(op for op in rule.ops if op not in stacked)
        apart, count = _count(ours[0], shapes)
        for e in range(count):
            part = (e, count, stacked[0] != "unstack") if stacked else None
            names, own = (tuple(name.replace("{e}", str(e)) for name in side) for side in (theirs, ours))
            yield Move(names, own, rest, None if apart else e, part)


def _count(pattern: str, shapes: Mapping[str, Shape]) -> tuple[bool, int]:
    """Whether each expert has its own kit tensors, and the number of experts."""
    if "{e}" not in pattern:
        return False, shapes[pattern][0] if pattern in shapes else 0
    return True, next(count for count in itertools.count() if pattern.replace("{e}", str(count)) not in shapes)


def constants(declaration: Declaration, layers: int) -> dict[str, float]:
    """Required value of each constant checkpoint tensor, by name."""
    return {n.replace("{i}", str(i)): v for n, v in declaration.constants.items() for i in range(layers)}


def ignored(name: str, declaration: Declaration, layers: int) -> bool:
    """Whether a checkpoint tensor is known not to be a weight. {n} in a pattern matches a layer beyond the last."""
    found = re.search(r"\.(\d+)\.", name)
    beyond = name.replace(found[0], ".{n}.", 1) if found and int(found[1]) >= layers else name
    return any(fnmatchcase(name, pattern) or fnmatchcase(beyond, pattern) for pattern in declaration.ignore)


def outgoing(found: list[Move]) -> dict[tuple[str, ...], list[Move]]:
    """Moves grouped by the checkpoint tensors that they produce together, in order."""
    groups: dict[tuple[str, ...], list[Move]] = {}
    for move in found:
        groups.setdefault(move.theirs, []).append(move)
    return groups
