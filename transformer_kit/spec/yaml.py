"""Parses YAML to plain values with marks: YAML 1.2 scalars, no tags, no duplicate keys, bounded size and depth.

It builds values from the parser's events, so a hostile file is refused before it grows. `dump` writes plain values so
that `parse` returns them.
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml
from yaml.reader import ReaderError

from registry.untrusted import lone_surrogate
from transformer_kit.spec.errors import Mark, Problem, SpecError, shown
from transformer_kit.spec.tree import MAX_DEPTH, Items, Table, copied

MAX_LENGTH = 400_000
MAX_NODES = 25_000
MAX_PROBLEMS = 50
MAX_DIGITS = 1000

_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BREAKS = re.compile("[\x85\u2028\u2029]")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBERS = {".inf": float("inf"), "-.inf": float("-inf"), "+.inf": float("inf"), ".nan": float("nan")}


def parse(text: str, file: str) -> tuple[Any, Mark]:
    """The value of a spec and the place where it starts. Raises SpecError."""
    if len(text) > MAX_LENGTH:
        raise SpecError(
            [Problem(Mark(file), f"the spec is too long: at most {MAX_LENGTH} characters, got {len(text)}")]
        )
    reader = _Reader(text, file)
    try:
        value, mark = reader.document()
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError([*reader.problems, _broken(error, text, file)]) from None
    if reader.problems:
        raise SpecError(reader.problems)
    return value, mark or Mark(file, 1, 1)


def dump(value: Any) -> str:
    """YAML that `parse` reads back as `value`, for plain mappings, lists and scalars."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def scalar(text: str) -> Any:
    """The value of a plain scalar, by the rules of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _NUMBERS.get(text.lower(), text)


def _integer(text: str) -> int | str:
    if len(text) > MAX_DIGITS:  # Python may refuse it; as a string it fails its field's check
        return text
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _broken(error: Exception, text: str, file: str) -> Problem:
    """The parser's error as a problem; escapes and versions out of range raise plain Python errors."""
    if isinstance(error, yaml.MarkedYAMLError):
        place = error.problem_mark or error.context_mark
        mark = Mark(file, place.line + 1, place.column + 1) if place else Mark(file, 1, 1)
        return Problem(mark, f"not YAML: {_reason(error)}")
    if isinstance(error, ReaderError):
        before = text[: error.position]
        mark = Mark(file, before.count("\n") + 1, error.position - before.rfind("\n"))
        return Problem(mark, f"not YAML: the character {text[error.position]!r} may not stand in a spec")
    return Problem(Mark(file, 1, 1), "not YAML: a number in an escape or in a directive is out of range")


def _reason(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if "\\t" in problem:
        return f"{problem}; indent with spaces"
    return problem


class _Dumper(yaml.SafeDumper):
    """Quotes strings that YAML 1.1 or 1.2 would read as another type, and writes repeated values in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar(value), str) else "'"
    if _BREAKS.search(value):
        style = '"'  # other styles write them unescaped, and reading turns them into spaces
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _write_text)


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.nodes = 0

    def document(self) -> tuple[Any, Mark | None]:
        event = next(self.events)
        while isinstance(event, (yaml.StreamStartEvent, yaml.DocumentStartEvent)):
            event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None, None
        mark = self._mark(event, "")
        value = self._value(event, (), 0)
        next(self.events)
        after = next(self.events)
        if isinstance(after, yaml.DocumentStartEvent):
            self._problem(after, (), "a spec is one document; `---` starts a second one")
        return value, mark

    def _value(self, event: Any, path: tuple[Any, ...], depth: int) -> Any:
        self._count(event, 1)
        if depth > MAX_DEPTH:
            self._stop(event, (), f"nested too deeply: at most {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path)
        if event.tag is not None:
            self._problem(event, path, f"tags are not used in specs, got '{event.tag}'")
        before = self.nodes
        value = self._built(event, path, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.nodes - before + 1)
        return value

    def _built(self, event: Any, path: tuple[Any, ...], depth: int) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self._table(path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(path, depth)
        if point := lone_surrogate(event.value):
            self._problem(event, path, f"must be Unicode, got a lone surrogate, half a character: {point}")
        return scalar(event.value) if event.implicit[0] else event.value

    def _table(self, path: tuple[Any, ...], depth: int) -> Table:
        table = Table()
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._value(event, path, depth + 1)
            key_event, event = event, next(self.events)
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                self._problem(key_event, path, f"a key must be a word or a whole number, got {shown(key)}")
                key = str(key)
            here = (*path, key)
            if key in table:
                first = table.keys_at[key]
                self._problem(key_event, here, f"'{key}' is written twice, first in line {first.line}")
            value_mark = self._mark(event, here)
            table.put(key, self._value(event, here, depth + 1), self._mark(key_event, here), value_mark)
        return table

    def _items(self, path: tuple[Any, ...], depth: int) -> Items:
        items = Items()
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            here = (*path, len(items))
            items.values_at.append(self._mark(event, here))
            items.append(self._value(event, here, depth + 1))
        return items

    def _alias(self, event: Any, path: tuple[Any, ...]) -> Any:
        if event.anchor not in self.anchors:
            self._stop(event, path, f"no anchor '&{event.anchor}' before this")
        value, size = self.anchors[event.anchor]
        self._count(event, size)
        return copied(value)

    def _count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            self._stop(event, (), f"the spec grows too large: at most {MAX_NODES} values, aliases counted in full")

    def _stop(self, event: Any, path: tuple[Any, ...], text: str) -> NoReturn:
        self._problem(event, path, text)
        raise SpecError(self.problems)

    def _problem(self, event: Any, path: tuple[Any, ...], text: str) -> None:
        self.problems.append(Problem(self._mark(event, path), text))
        if len(self.problems) >= MAX_PROBLEMS:
            raise SpecError(self.problems)

    def _mark(self, event: Any, path: Any) -> Mark:
        dotted = ".".join(map(str, path))
        return Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1, dotted)
