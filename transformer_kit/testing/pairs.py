"""A small set of specs with every pair of choices: of parts and of their options, in any slots.

    rows, refused = covering()

A choice is a value of a field: a part in a slot, or an option of that part. Each valid pair of choices is in one of
`rows`. Each other pair is in `refused`, with the error of a plain spec that has it.
"""

import itertools
import random
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from registry import core
from registry.options import Options, Slot, plain, slot_family
from transformer_kit.model.build import assemble
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.schema import ModelSpec, Spec
from transformer_kit.testing.carriers import LAYERS, Carrier, contract, page
from transformer_kit.testing.values import Path, leaves, minimal, values

Key = tuple[str, ...]
"""Place of a choice: the slots' and parts' names on the path, then the field's."""
Choice = tuple[Key, int]
"""A place, and the index of its value."""
Pair = frozenset[Choice]

MANY = 7
"""In slots inside other parts, families with more parts than this use the first and the last part alone."""
DEEP = 2
"""Parts in slots with longer paths than this, such as a mixture's router, have their first options."""
BESIDE = 400
"""Number of pairs to search for some that fit into the same row."""
TRIES = 6
"""Number of models with a pair to try before it counts as refused."""


@dataclass(frozen=True)
class Row:
    """One model, and its choices."""

    chosen: frozenset[Choice]
    carrier: Carrier

    @property
    def pairs(self) -> set[Pair]:
        """All pairs of its choices."""
        return {frozenset(p) for p in itertools.combinations(self.chosen, 2)}


def covering(seed: int = 0) -> tuple[list[Row], dict[Pair, str]]:
    """Rows with every valid pair of choices, and the refused pairs with their reasons."""
    space, random_ = Space(), random.Random(seed)
    missing = space.pairs()
    known = {c: row for c in space.choices if (row := space.first_row(c, missing, random_)) is not None}
    refused = {p for p in missing if not p <= known.keys()}
    rows: list[Row] = []
    order = random_.sample(sorted(missing, key=sorted), len(missing))
    order.sort(key=space.apart)  # later rows avoid pairs that were refused earlier
    while order:
        order = [p for p in order if p in missing and p not in refused]
        if not order:
            break
        pair = order[0]
        row = space.row_with(pair, missing, refused, random_, order[1:BESIDE]) or space.row_near(
            pair, [*known.values(), *rows]
        )
        if row is None:
            refused.add(pair)
        else:
            rows.append(row)
            missing -= row.pairs
            refused -= row.pairs
    return rows, {pair: space.reason(pair, [*known.values(), *rows]) for pair in refused}


class Space:
    """All choices, and the models they make."""

    def __init__(self) -> None:
        self.values: dict[Key, list[Any]] = {}
        self.needs: dict[Key, Choice | None] = {}
        """The choice of the part that a field belongs to; None for fields that always exist."""
        self.roots: list[Key] = []
        self._opened: dict[str, Key] = {}
        """The slot of each family whose options are choices; in other slots its parts have their first options."""
        for name, field in ModelSpec.model_fields.items():
            if not field.is_required():
                self._root(name, _read(field))
        for family in ("block", "kernel"):
            self._root(family, [minimal(core.get(family, n)) for n in core.names(family)])

    def pairs(self) -> set[Pair]:
        """All pairs of choices that do not exclude each other."""
        implied = {c: self.implied(c) for c in self.choices}
        every = itertools.combinations(self.choices, 2)
        return {frozenset(p) for p in every if _together(implied[p[0]], implied[p[1]])}

    @property
    def choices(self) -> list[Choice]:
        """Every value of every field."""
        return [(key, i) for key, found in self.values.items() for i in range(len(found))]

    def implied(self, choice: Choice) -> dict[Key, int]:
        """The choice, and the parts that it requires."""
        found: dict[Key, int] = {}
        here: Choice | None = choice
        while here is not None:
            found[here[0]] = here[1]
            here = self.needs[here[0]]
        return found

    def apart(self, pair: Pair) -> bool:
        """Whether a refusal is unlikely: the pair is neither two options of one part nor two parts."""
        (one, i), (other, j) = sorted(pair)
        parts = isinstance(self.values[one][i], Options) and isinstance(self.values[other][j], Options)
        return not parts and self.needs[one] != self.needs[other]

    def first_row(self, choice: Choice, missing: set[Pair], random_: random.Random) -> Row | None:
        """The plainest model with this choice; None without a valid one."""
        plainest = self.row(self.implied(choice))
        if plainest is not None:
            return plainest
        tried = (self.row_with({choice}, missing, set(), random_) for _ in range(TRIES))
        return next((row for row in tried if row is not None), None)

    def row_near(self, pair: Pair, rows: list[Row]) -> Row | None:
        """A model with this pair, made from one with half of it by changing the other half alone."""
        for one in sorted(pair):
            (other,) = pair - {one}
            for near in [row for row in rows if one in row.chosen][:TRIES]:
                row = self.row({**dict(near.chosen), **self.implied(one), **self.implied(other)})
                if row is not None and pair <= row.chosen:
                    return row
        return None

    def row_with(
        self,
        pair: Set[Choice],
        missing: set[Pair],
        refused: set[Pair],
        random_: random.Random,
        beside: Sequence[Pair] = (),
    ) -> Row | None:
        """A model with this pair and as many missing pairs as possible; None when all attempts are refused.

        The last attempts are the plainest: outside the pair, nearly all fields have their first value.
        """
        fixed = {key: i for choice in pair for key, i in self.implied(choice).items()}
        for attempt in range(TRIES):
            boldness = 1 - attempt / (TRIES - 1)
            chosen = dict(fixed)
            for other in beside:
                if random_.random() < boldness:
                    self._join(other, chosen, refused)
            keys = [k for k in self.values if k not in chosen]
            random_.shuffle(keys)
            for key in sorted(keys, key=self._depth):  # a part before its options
                need = self.needs[key]
                if (need is None or chosen.get(need[0], 0) == need[1]) and random_.random() < boldness:
                    chosen[key] = self._best(key, chosen, missing, refused, random_)
            row = self.row(chosen)
            if row is not None and pair <= row.chosen:
                return row
        return None

    def reason(self, pair: Pair, rows: list[Row]) -> str:
        """Reason why no model has this pair: the error of a model with half of it when the other half is added."""
        for one in sorted(pair):
            (other,) = pair - {one}
            for near in [row for row in rows if one in row.chosen][:1]:
                try:
                    self._row({**dict(near.chosen), **self.implied(one), **self.implied(other)})
                except SpecError as error:
                    return str(error)
        return ""

    def row(self, chosen: dict[Key, int]) -> Row | None:
        """The model of these choices, with other fields at their first value; None when it is refused."""
        try:
            return self._row(chosen)
        except SpecError:
            return None

    def _row(self, chosen: dict[Key, int]) -> Row:
        used: set[Choice] = set()
        made = {key[0]: self._value(key, chosen, used) for key in self.roots}
        kernel, block = made.pop("kernel"), made.pop("block")
        options = core.get("kernel", kernel.pop("type")).Options(**kernel)
        assemble(Spec.of(page(layers={"blocks": [block]}, **made)), options)  # one layer is enough, and faster
        return Row(frozenset(used), Carrier(Spec.of(page(layers={"blocks": [block] * LAYERS}, **made)), options))

    def _join(self, pair: Pair, chosen: dict[Key, int], refused: set[Pair]) -> None:
        """Choose this pair as well, unless it conflicts with another choice or with a refused pair."""
        wanted = {key: i for choice in pair for key, i in self.implied(choice).items()}
        if any(chosen.get(key, i) != i for key, i in wanted.items()):
            return
        both = {**chosen, **wanted}
        new = [c for c in wanted.items() if c[0] not in chosen]
        if not any(frozenset((c, other)) in refused for c in new for other in both.items()):
            chosen.update(wanted)

    def _depth(self, key: Key) -> int:
        return len(self.implied((key, 0)))

    def _best(
        self, key: Key, chosen: dict[Key, int], missing: set[Pair], refused: set[Pair], random_: random.Random
    ) -> int:
        """The value of a field that adds the most missing pairs to the choices, and no refused one."""
        worth = {}
        for i in random_.sample(range(len(self.values[key])), len(self.values[key])):
            made = [frozenset(((key, i), other)) for other in chosen.items()]
            worth[i] = -1 if any(p in refused for p in made) else sum(p in missing for p in made)
        return max(worth, key=lambda i: worth[i])

    def _value(self, key: Key, chosen: dict[Key, int], used: set[Choice]) -> Any:
        """The value of a field as in YAML, with the options of its part; records the choices used."""
        index = chosen.get(key, 0)
        used.add((key, index))
        value = self.values[key][index]
        if not isinstance(value, Options):
            return plain(value)
        written = plain(value)
        for path, _ in self._open(key, value):
            here = written
            for name in path[:-1]:
                here = here[name]
            here[path[-1]] = self._value(self._key(key, value, path), chosen, used)
        return written

    def _root(self, name: str, choices: list[Any]) -> None:
        self.roots.append((name,))
        self._add((name,), choices, None)

    def _add(self, key: Key, choices: list[Any], needs: Choice | None) -> None:
        self.values[key] = choices
        self.needs[key] = needs
        for i, value in enumerate(choices):
            for path, field in self._open(key, value):
                below = self._key(key, value, path)
                if below not in self.values:
                    shared = len(below) == len(key) + len(path)
                    found, family = _read(field), slot_family(field)
                    if family is not None and len(found) > MANY:
                        found = [found[0], found[-1]]
                    self._add(below, found, needs if shared else (key, i))

    def _open(self, slot: Key, value: Any) -> list[tuple[Path, FieldInfo]]:
        """The options of a part that are separate choices in this slot."""
        if not isinstance(value, Options):
            return []
        first = self._opened.setdefault(value.part.family, slot) if len(slot) <= DEEP else None
        return list(leaves(value.part.Options)) if first == slot else []

    def _key(self, slot: Key, value: Options, path: Key) -> Key:
        """Fields that a whole family shares are one choice for all its parts."""
        shared = path[0] in contract(value.part.family).Options.model_fields
        return (*slot, *(() if shared else (value.part.name,)), *path)


def _read(field: FieldInfo) -> list[Any]:
    """Values of a field, each part once: a default is written as in YAML, and counts as a part like the others."""
    family = slot_family(field)
    found = [v if family is None or v is None else Slot(family).read(v) for v in values(field)]
    numbers = [v for v in found if isinstance(v, (int, float)) and not isinstance(v, bool)]
    lists = [v for v in found if isinstance(v, tuple)]
    spared = [*(numbers[1:] if None in found else numbers[1:-1]), *lists[1:-1]]  # two parts of a kind stand for all
    kept = [v for v in found if not any(v is s for s in spared)]
    return [v for i, v in enumerate(kept) if v not in kept[:i]]


def _together(one: dict[Key, int], other: dict[Key, int]) -> bool:
    return all(other.get(key, i) == i for key, i in one.items()) and one.keys() != other.keys()


def told(row: Row, space: "Space") -> Iterator[str]:
    """The choices of a row in words, without first values."""
    for key, i in sorted(row.chosen):
        if i:
            yield f"{'.'.join(key)}={plain(space.values[key][i])}"
