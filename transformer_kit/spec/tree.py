"""Values that remember where they were written, and the one rule by which two of them merge.

A `Table` is a dict and an `Items` a list, so they validate as such; both carry a `Mark` for each member. Plain
dicts and lists, as Python users write them, work everywhere and simply have no marks.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from transformer_kit.spec.errors import Mark


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
        """Set `key` to `value`, marked as it is in `source`."""
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
    """`over` laid on `base`: mappings merge, anything else replaces, a part of another type replaces the whole part.

    A part may be written as its bare name. `dropped` collects the options lost with a replaced part.
    """
    if isinstance(over, str) and isinstance(base, Mapping) and "type" in base:
        over = _like(base, over)
    if isinstance(base, str) and isinstance(over, Mapping):
        base = _like(over, base)
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    if "type" in over and over["type"] != base.get("type", over["type"]):
        lost = [str(k) for k in base if k != "type" and k not in over]
        if dropped is not None and lost:
            dropped.append(f"{path}: '{over['type']}' replaces '{base['type']}' with its {', '.join(lost)}")
        return over
    result = Table()
    for key in base:
        result.take(key, base, base[key])
    for key, value in over.items():
        value = merge(base[key], value, dropped, f"{path}.{key}".strip(".")) if key in base else value
        result.take(key, over, value)
    return result


def _like(other: Any, name: str) -> Table:
    """A part written by its bare name, as a mapping."""
    table = Table()
    table.put("type", name, *marks_of(other, "type"))
    return table


def find(tree: Any, path: tuple[Any, ...]) -> Mark | None:
    """Place of the value at `path`, or of the nearest thing that encloses it."""
    mark = None
    for key in path:
        key_at, value_at = marks_of(tree, key)
        mark = key_at or value_at or mark
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            break
    return mark


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """The value at `path`; None when there is nothing."""
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def stamp(tree: Any, via: str) -> Any:
    """The same values, each mark saying how it came here."""
    if isinstance(tree, Table):
        table = Table()
        for key, value in tree.items():
            marks = [None if m is None else _via(m, via) for m in marks_of(tree, key)]
            table.put(key, stamp(value, via), *marks)
        return table
    if isinstance(tree, Items):
        items = Items(stamp(v, via) for v in tree)
        items.values_at = [_via(m, via) for m in tree.values_at]
        return items
    return tree


def _via(mark: Mark, via: str) -> Mark:
    return mark if mark.via else Mark(mark.file, mark.line, mark.column, mark.path, via)
