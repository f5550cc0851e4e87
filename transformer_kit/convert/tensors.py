"""Which of their tensors are which of ours, for one model: a declaration's rules with layers and experts filled in."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from transformer_kit.convert.declaration import Declaration
from transformer_kit.convert.layout import Op
from transformer_kit.convert.schema import Rule

Shape = tuple[int, ...]
_EXPERT = re.compile(r"\{e\}")


@dataclass(frozen=True)
class Move:
    """Some of theirs that are some of ours."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    ops: tuple[Op, ...]
    part: tuple[int, int, bool] | None = None
    """Of a stacked tensor: which of how many, and whether they lie folded below one another."""


def moves(declaration: Declaration, shapes: Mapping[str, Shape], layers: int) -> list[Move]:
    """Every move for a model whose tensors have `shapes`. Rules whose tensors the model has not are left out."""
    found: list[Move] = []
    covered: set[str] = set()
    for label, given in declaration.tensors.items():
        rule = Rule(theirs=[label], ours=[given]) if isinstance(given, str) else given
        for move in _instances(rule, shapes, layers):
            fresh = not covered & set(move.ours)
            if fresh and all(name in shapes for name in move.ours):
                covered |= set(move.ours)
                found.append(move)
    return found


def alternatives(declaration: Declaration, shapes: Mapping[str, Shape], layers: int, present: set[str]) -> list[Move]:
    """As `moves`, of several rules for a tensor taking the one whose tensors are `present`."""
    rules = {
        label: given
        for label, given in declaration.tensors.items()
        if any(
            n in present
            for n in _names(Rule(theirs=[label], ours=[given]) if isinstance(given, str) else given, layers)
        )
    }
    first = moves(declaration.model_copy(update={"tensors": rules}), shapes, layers)
    covered = {name for move in first for name in move.ours}
    return first + [m for m in moves(declaration, shapes, layers) if not covered & set(m.ours)]


def _names(rule: Rule, layers: int) -> Iterator[str]:
    for i in range(layers):
        yield from (name.replace("{i}", str(i)).replace("{e}", "0") for name in rule.theirs)


def _instances(rule: Rule, shapes: Mapping[str, Shape], layers: int) -> Iterator[Move]:
    spread = any("{i}" in name for name in rule.theirs + rule.ours)
    for i in range(layers) if spread else [0]:
        theirs = [n.replace("{i}", str(i)) for n in rule.theirs]
        ours = [n.replace("{i}", str(i)) for n in rule.ours]
        if not any(_EXPERT.search(n) for n in ours):
            yield Move(tuple(theirs), tuple(ours), tuple(rule.ops))
            continue
        count = _experts(ours[0], shapes)
        for e in range(count):
            yield _expert(rule, theirs, ours, e, count)


def _expert(rule: Rule, theirs: list[str], ours: list[str], e: int, count: int) -> Move:
    stacked = [op for op in rule.ops if op == "unstack" or (isinstance(op, dict) and "fold" in op)]
    rest = tuple(op for op in rule.ops if op not in stacked)
    part = (e, count, stacked[0] != "unstack") if stacked else None
    named = tuple(n.replace("{e}", str(e)) for n in theirs)
    return Move(named, tuple(n.replace("{e}", str(e)) for n in ours), rest, part)


def _experts(pattern: str, shapes: Mapping[str, Shape]) -> int:
    count = 0
    while pattern.replace("{e}", str(count)) in shapes:
        count += 1
    return count


def constants(declaration: Declaration, layers: int) -> dict[str, float]:
    """What each tensor of theirs that is no weight must hold, by name."""
    return {n.replace("{i}", str(i)): v for n, v in declaration.constants.items() for i in range(layers)}


def ignored(name: str, declaration: Declaration, layers: int) -> bool:
    """Whether a tensor of theirs is known to be no weight; {n} in a pattern stands for a layer beyond the last."""
    found = re.search(r"\.(\d+)\.", name)
    beyond = name.replace(found[0], ".{n}.", 1) if found and int(found[1]) >= layers else name
    return any(fnmatchcase(name, pattern) or fnmatchcase(beyond, pattern) for pattern in declaration.ignore)


def outgoing(found: list[Move]) -> dict[tuple[str, ...], list[Move]]:
    """Moves by the tensors of theirs that they make together, in order."""
    groups: dict[tuple[str, ...], list[Move]] = {}
    for move in found:
        groups.setdefault(move.theirs, []).append(move)
    return groups
