"""Small valid values for any option, from its annotation, so that no part needs a list by hand.

    values(field)                  a few valid values of the field, the most informative first
    minimal(part)                  options with required fields filled in
    changed(options, path, value)  the options with one change, or None if that is invalid
    variants(part)                 the minimal options, and every change of one of them

A field whose type does not determine its values has pydantic's `Field(examples=[...])`.
"""

import itertools
import math
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from registry import core
from registry.options import Group, Options, Slot, plain, slot_family

INTEGERS = (2, 1, 4, 6, 0)
NUMBERS = (0.5, 2.0, 1.0, 0.25, 0.0)
STRINGS = ("a", "b")
SLOTTED = 3
"""Number of parts to try in a slot, with the last one: each part's own checks put it into one."""

LEFT_OUT: dict[tuple[str, str], Exception] = {}
"""Broken parts, left out of other parts' slots."""

Path = tuple[str, ...]
N = TypeVar("N", int, float)

_inside: ContextVar[frozenset[tuple[str, str]]] = ContextVar(
    "parts around the one being filled in", default=frozenset()
)


def values(field: FieldInfo) -> list[Any]:
    """Valid values of `field`, the default first if there is one."""
    if field.examples:
        found = list(field.examples)
    else:
        found = _values(field.annotation, list(field.metadata))
    default = [] if field.is_required() else [field.get_default(call_default_factory=True)]
    return _distinct([*default, *found])


def leaves(group: type[Group], above: Path = (), optional: bool = False) -> Iterator[tuple[Path, FieldInfo]]:
    """Every field of a group of options with its path; nested groups are entered, slots are not.

    An optional group counts as a field; with `optional`, its fields are included too.
    """
    for name, field in group.model_fields.items():
        kinds = () if slot_family(field) else (field.annotation, *get_args(field.annotation))
        nested = next((k for k in kinds if isinstance(k, type) and issubclass(k, Group)), None)
        if nested is None or nested is not field.annotation:
            yield (*above, name), field
        if nested is not None and (optional or nested is field.annotation):
            yield from leaves(nested, (*above, name), optional)


def minimal(part: Any, **given: Any) -> Options:
    """Options of `part` with `given`, and the first valid values of other required fields.

    Raises ValueError without any.
    """
    token = _inside.set(_inside.get() | {(part.family, part.name)})
    try:
        required = {n: values(f) for n, f in part.Options.model_fields.items() if f.is_required() and n not in given}
    finally:
        _inside.reset(token)
    for chosen in itertools.islice(itertools.product(*required.values()), 1000):
        options = _validated(part, {**given, **dict(zip(required, chosen, strict=True))})
        if options is not None:
            return options
    raise ValueError(f"no valid options found for {part.family} '{part.name}'; give its fields `examples`")


def changed(options: Options, path: Path, value: Any) -> Options | None:
    """`options` with another value at `path`; None when the part refuses it."""
    page = placed(options, path, value)
    page.pop("type")
    return _validated(options.part, page)


def placed(options: Options, path: Path, value: Any) -> dict[str, Any]:
    """`options` as in YAML, with another value at `path`; an omitted group is filled in."""
    page: dict[str, Any] = plain(options)
    here, fields = page, dict(leaves(type(options), optional=True))
    for i, name in enumerate(path[:-1], 1):
        if here[name] is None:
            here[name] = next(plain(v) for v in values(fields[path[:i]]) if v is not None)
        here = here[name]
    here[path[-1]] = value
    return page


def variants(part: Any) -> Iterator[tuple[str, Options]]:
    """The minimal options of a part, then each change of a single one, with the change in words."""
    base = minimal(part)
    yield "default", base
    for path, field in leaves(part.Options):
        found = [v for v in values(field) if not _is_anothers(v, part)]
        few = found if slot_family(field) is None else [*found[:SLOTTED], *found[SLOTTED:][-1:]]
        for value in few:
            options = changed(base, path, value)
            if options is not None and options != base:
                yield f"{'.'.join(path)}={brief(value)}", options


def _is_anothers(value: Any, part: Any) -> bool:
    """Whether a value is a part of another plugin than `part`, whose faults do not concern `part`."""
    held = value.part.name if isinstance(value, Options) and value.part else ""
    return "." in held and held.partition(".")[0] != part.name.partition(".")[0]


def brief(value: Any) -> str:
    """A value in a few words."""
    return value.part.name if isinstance(value, Options) and value.part else str(plain(value))


def _validated(part: Any, page: dict[str, Any]) -> Options | None:
    try:
        options: Options = part.Options.model_validate(page)
    except ValidationError:
        return None
    return options


def _values(annotation: Any, metadata: list[Any]) -> list[Any]:
    slot = _slot(metadata)
    if slot is not None:
        return list(_parts(slot.family))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0], [*metadata, *arguments[1:]])
    if origin in (Union, UnionType):
        return [v for a in arguments for v in _values(a, metadata)]
    if origin is Literal:
        return list(arguments)
    if origin is tuple:
        return _tuples(arguments, metadata)
    return _scalars(annotation, metadata)


def _scalars(kind: Any, metadata: list[Any]) -> list[Any]:
    if kind is NoneType:
        return [None]
    if kind is bool:
        return [False, True]
    if kind is int:
        low, high, step = bounds(metadata)
        first = low if math.isfinite(low) else 1
        far = [math.ceil(first / step) * step + i * step for i in range(3)]
        return _within([*INTEGERS, *map(int, far)], low, high, step)[:3]
    if kind is float:
        low, high, _ = bounds(metadata)
        return _within([*NUMBERS, (low + high) / 2], low, high, 0)[:2]
    if kind is str:
        return list(STRINGS)
    if isinstance(kind, type) and issubclass(kind, Group):
        return list(itertools.islice(_groups(kind), 1))
    return []


def _groups(kind: type[Group]) -> Iterator[Group]:
    """Groups of options with required fields filled in."""
    required = {n: values(f) for n, f in kind.model_fields.items() if f.is_required()}
    for chosen in itertools.islice(itertools.product(*required.values()), 1000):
        with suppress(ValidationError):
            yield kind.model_validate(dict(zip(required, chosen, strict=True)))


def bounds(metadata: list[Any]) -> tuple[float, float, int]:
    """Minimum, maximum and step from annotated_types; exclusive bounds are moved inside."""
    low, high, step = -math.inf, math.inf, 1
    for m in _flat(metadata):
        if isinstance(m, Ge):
            low = max(low, _number(m.ge))
        elif isinstance(m, Gt):
            low = max(low, math.nextafter(_number(m.gt), math.inf))
        elif isinstance(m, Le):
            high = min(high, _number(m.le))
        elif isinstance(m, Lt):
            high = min(high, math.nextafter(_number(m.lt), -math.inf))
        elif isinstance(m, MultipleOf):
            step = int(_number(m.multiple_of))
    return low, high, step


def lengths(metadata: list[Any]) -> tuple[int, int]:
    """Minimum and maximum length."""
    flat = list(_flat(metadata))
    shortest = max((m.min_length for m in flat if isinstance(m, MinLen)), default=0)
    return shortest, min((m.max_length for m in flat if isinstance(m, MaxLen)), default=64)


def _flat(metadata: list[Any]) -> Iterator[BaseMetadata]:
    for m in metadata:
        if isinstance(m, GroupedMetadata):
            yield from _flat(list(m))
        elif isinstance(m, BaseMetadata):
            yield m


def _number(bound: Any) -> float:
    return float(bound)


def _within(candidates: list[N], low: float, high: float, step: int) -> list[N]:
    inside = [c for c in candidates if low <= c <= high and math.isfinite(c) and (step < 2 or c % step == 0)]
    return list(dict.fromkeys(inside))


def _tuples(items: tuple[Any, ...], metadata: list[Any]) -> list[Any]:
    if len(items) == 2 and items[1] is Ellipsis:
        shortest, longest = lengths(metadata)
        each = _values(items[0], [])
        found: list[Any] = [(), *((v,) for v in each), tuple(each)]
        return [v for v in found if shortest <= len(v) <= longest]
    columns = [_values(i, []) for i in items]
    return [tuple(row) for row in zip(*columns, strict=False)]


def _slot(metadata: list[Any]) -> Slot | None:
    return next((m for m in metadata if isinstance(m, Slot)), None)


def sound(family: str) -> Iterator[Any]:
    """Importable parts of a family, the kit's own first. Broken ones fail their own checks alone."""
    for name in sorted(core.names(family), key=lambda name: ("." in name, name)):
        try:
            part = core.get(family, name)
        except Exception as error:
            LEFT_OUT[family, name] = error
        else:
            yield part


def _parts(family: str) -> Iterator[Options]:
    """Minimal options of each part of a family, where valid.

    A part that may hold its own kind, as a mixture holds feed-forwards, is not put into itself.
    """
    for part in sound(family):
        if (family, part.name) in _inside.get():
            continue
        try:
            options = minimal(part)
        except ValueError:  # no valid options at its site
            continue
        except Exception as error:
            LEFT_OUT[family, part.name] = error
        else:
            yield options


def _distinct(found: list[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in found:
        if not any(value == k and type(value) is type(k) for k in kept):
            kept.append(value)
    return kept
