"""Values that remember their place in a file, and the rule by which two of them merge.

A `Table` is a dict and an `Items` a list, so they validate as such; both carry a `Mark` for each member. Plain dicts
and lists work everywhere and have no marks; `written` adds them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from registry.options import Options, plain
from registry.untrusted import lone_surrogate
from transformer_kit.spec.errors import Mark, Problem, SpecError

MAX_DEPTH = 60
"""Largest nesting depth of values."""

Path = tuple[Any, ...]


class Table(dict[Any, Any]):
    """A mapping with the place of each key and each value."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.keys_at: dict[Any, Mark] = {}
        self.values_at: dict[Any, Mark] = {}

    def put(self, key: Any, value: Any, key_at: Mark | None, value_at: Mark | None) -> None:
        """Set `key` with its marks."""
        self[key] = value
        self.keys_at.pop(key, None)
        self.values_at.pop(key, None)
        if key_at is not None:
            self.keys_at[key] = key_at
        if value_at is not None:
            self.values_at[key] = value_at

    def take(self, key: Any, source: Mapping[Any, Any], value: Any) -> None:
        """Set `key` to `value`, with the marks of `source`."""
        self.put(key, value, *marks_of(source, key))


class Items(list[Any]):
    """A list with the place of each item."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__(values)
        self.values_at: list[Mark] = []


def marks_of(source: Any, key: Any) -> tuple[Mark | None, Mark | None]:
    """Places of a key and of its value."""
    if isinstance(source, Table):
        return source.keys_at.get(key), source.values_at.get(key)
    if isinstance(source, Items) and isinstance(key, int) and -len(source) <= key < len(source.values_at):
        return source.values_at[key], source.values_at[key]
    return None, None


def merge(base: Any, over: Any, dropped: list[str] | None = None, path: str = "") -> Any:
    """`over` merged onto `base`: mappings merge, other values replace; a part of another type replaces the whole part.

    A part in it may be a bare name. `dropped` collects notes about the options lost with a replaced part.
    """
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    if "type" in over and over["type"] != base.get("type", over["type"]):
        lost = [str(k) for k in base if k != "type" and k not in over]
        if dropped is not None and lost:
            mark = marks_of(over, "type")[1]
            where = f"{mark}: " if mark is not None and mark.line else ""
            text = f"'{over['type']}' replaces '{base['type']}'; not carried over: {', '.join(lost)}"
            dropped.append(f"{where}{path}: {text}" if path else f"{where}{text}")
        return over
    result = Table()
    for key in base:
        result.take(key, base, base[key])
    for key in over:
        value = over[key]
        if key in base:
            value = merge(*_parts(base, over, key), dropped, f"{path}.{key}".strip("."))
        result.take(key, over, value)
    return result


def _parts(base: Mapping[Any, Any], over: Mapping[Any, Any], key: Any) -> tuple[Any, Any]:
    """The values at `key`; next to a mapping, a bare name becomes its mapping."""
    under, upper = base[key], over[key]
    if isinstance(upper, str) and isinstance(under, Mapping) and "type" in under:
        return under, named(over, key)
    if isinstance(under, str) and isinstance(upper, Mapping):
        return named(base, key), upper
    return under, upper


def named(source: Any, key: Any) -> Table:
    """The part at `key`, given by its bare name, as a mapping."""
    table = Table()
    mark = marks_of(source, key)[1]
    table.put("type", source[key], mark, mark)
    return table


def difference(base: Any, over: Any) -> Any:
    """The smallest `changes` with merge(base, changes) == over, if any: merging removes no key."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping) or base.get("type") != over.get("type"):
        return over
    changed = (k for k in over if k not in base or repr(base[k]) != repr(over[k]))
    return {k: difference(base[k], over[k]) if k in base else over[k] for k in changed}


def find(tree: Any, path: Path) -> Mark | None:
    """Place of the value at `path`, or of the nearest value around it."""
    mark = None
    for key in path:
        key_at, value_at = marks_of(tree, key)
        mark = key_at or value_at or mark
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            break
    return mark


def at(tree: Any, path: Path) -> Any:
    """The value at `path`; None without one."""
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def written(value: Any, file: str, path: Path = ()) -> Any:
    """A Python user's values, with marks in `file`: plain containers, parts as mappings, other objects unchanged.

    Raises SpecError for values nested too deeply, and for lone surrogates.
    """
    if len(path) > MAX_DEPTH:
        mark = Mark(file, path=".".join(map(str, path[:3])))
        raise SpecError([Problem(mark, f"nested too deeply: at most {MAX_DEPTH} levels")])
    if isinstance(value, Options) and value.part is not None:
        value = plain(value)
    if isinstance(value, Mapping):
        table = Table()
        for key, inner in value.items():
            here = (*path, key)
            mark = _checked(key, Mark(file, path=".".join(map(str, here))))
            table.put(key, written(inner, file, here), mark, mark)
        return table
    if isinstance(value, (list, tuple)):
        items = Items(written(inner, file, (*path, i)) for i, inner in enumerate(value))
        items.values_at = [Mark(file, path=".".join(map(str, (*path, i)))) for i in range(len(items))]
        return items
    _checked(value, Mark(file, path=".".join(map(str, path))))
    return value


def _checked(value: Any, mark: Mark) -> Mark:
    """Place of a value. Raises SpecError for a string with a lone surrogate."""
    if isinstance(value, str) and (point := lone_surrogate(value)):
        raise SpecError([Problem(mark, f"must be Unicode, got a lone surrogate, half a character: {point}")])
    return mark


def copied(tree: Any) -> Any:
    """A deep copy of `tree`."""
    return remarked(tree, lambda mark: mark)


def stamp(tree: Any, via: str) -> Any:
    """The same values, with their origin in each mark."""
    return remarked(tree, lambda mark: mark if mark.via else replace(mark, via=via))


def remarked(tree: Any, change: Callable[[Mark], Mark]) -> Any:
    """A copy of the same values with changed marks."""
    if isinstance(tree, Table):
        table = Table()
        for key, value in tree.items():
            key_at, value_at = (None if m is None else change(m) for m in marks_of(tree, key))
            table.put(key, remarked(value, change), key_at, value_at)
        return table
    if isinstance(tree, Items):
        items = Items(remarked(v, change) for v in tree)
        items.values_at = [change(m) for m in tree.values_at]
        return items
    return tree
