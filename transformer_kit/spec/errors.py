"""The faults of a spec, all at once.

SpecError          all faults of one spec; a ValueError
`- .problems       each a `Problem`, in the spec's order: its place, what must hold, what was given, what to choose
"""

import re
import reprlib
import unicodedata
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mark:
    """A place in a spec."""

    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    """Dotted path of the value in its own spec."""
    via: str = ""
    """Origin of the value when it is not in the spec itself: `--set`, or `extends` with its file."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One fault."""

    mark: Mark
    text: str

    def __str__(self) -> str:
        path = f"{self.mark.path}: " if self.mark.path else ""
        via = f" ({self.mark.via})" if self.mark.via else ""
        return readable(f"{self.mark}: {path}{self.text}{via}")


class SpecError(ValueError):
    """The spec is wrong. `problems` lists each fault once; the message has a line for each."""

    def __init__(self, problems: list[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = sorted(unique, key=lambda p: (p.mark.file, p.mark.line, p.mark.column))
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type["SpecError"], tuple[list[Problem]]]:
        return SpecError, (self.problems,)


class _Short(reprlib.Repr):
    """Builtin `repr`, in bounded time and length; tables and lists with marks look like plain ones."""

    repr_Table = reprlib.Repr.repr_dict
    repr_Items = reprlib.Repr.repr_list

    def repr_int(self, x: int, level: int) -> str:
        return "a number of over 50 digits" if x.bit_length() > 166 else repr(x)


MAX_WORD, MAX_TEXT = 400, 4000
"""Largest number of characters of a word and of a message."""
_LONG = re.compile(rf"\S{{{MAX_WORD + 1},}}")


def readable(text: str) -> str:
    """A message that every terminal and every encoding can show: control characters and lone surrogates become escapes,
    and long text is cut.
    """
    text = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..."
    text = _LONG.sub(lambda match: f"{match[0][:MAX_WORD]}...", text)
    return text if text.isprintable() else "".join(map(_written, text))


def _written(character: str) -> str:
    escaped = character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cs")
    return ascii(character)[1:-1] if escaped else character


_short = _Short()
_short.maxstring = _short.maxother = 60
_WORDS = {"None": "nothing", "True": "true", "False": "false"}


def shown(value: Any) -> str:
    """The given value as a message quotes it: short, and in YAML's terms."""
    text = _short.repr(value)
    return _WORDS.get(text, text)
