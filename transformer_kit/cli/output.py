"""Output of commands: aligned and colored on a terminal, plain lines in a pipe, JSON for a program."""

import codecs
import json
import math
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformer_kit.cli.failures import Failure

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")]


def console(*, stderr: bool = False) -> "Console":
    """A console without highlighting and without wrapping of long lines."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def lose_nothing(*streams: Any) -> None:
    """Use UTF-8 for redirected output in every locale; a terminal shows ? for characters that it lacks.

    Bytes of a file's name that are not UTF-8 are written unchanged, other lone surrogates as an escape.
    """
    codecs.register_error("kit", _bytes_or_escape)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(**{"errors": "replace"} if stream.isatty() else {"encoding": "utf-8", "errors": "kit"})


def _bytes_or_escape(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    try:
        return error.object[error.start : error.end].encode("utf-8", "surrogateescape"), error.end
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(error)


def is_terminal() -> bool:
    """Whether stdout is a terminal; a pipe gets plain text, without importing rich."""
    return sys.stdout.isatty()


def say(text: str = "", style: str = "") -> None:
    """One line on stdout."""
    if is_terminal():
        console().print(text, style=style)
    else:
        sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A note in one line on stderr."""
    console(stderr=True).print(harmless(f"note: {text}"), style="yellow")


def emit(value: Any, *, line: bool = False) -> None:
    """`value` as JSON on stdout; on one `line`, flushed, when it is one of a stream."""
    text = json.dumps(_finite(value), ensure_ascii=False, indent=None if line else 2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a lone surrogate, or a character that the terminal lacks
        text = json.dumps(_finite(value), indent=None if line else 2)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def rows(lines: Sequence[Sequence[str]], styles: Sequence[str] = ("bold", "", "dim")) -> None:
    """A table without borders: the last column wraps on a terminal, not in a pipe."""
    if not lines:
        return
    if not is_terminal():
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    last = len(lines[0]) - 1
    for i in range(last + 1):
        table.add_column(style=styles[i] if i < len(styles) else "", no_wrap=i < last, overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console().print(table, soft_wrap=False)


def fail(failed: Failure, *, as_json: bool) -> None:
    """Print an error: on stderr, or as JSON on stdout."""
    if as_json:
        emit({"errors": failed.data()}, line=True)  # events may come before it
        return
    from rich.text import Text

    out = console(stderr=True)
    for problem in failed.problems:
        where = harmless(f"{problem.mark}: ") if problem.mark.file else ""
        text = Text(where, "bold") if where else Text("error: ", "bold red")
        out.print(text.append(harmless(str(problem).removeprefix(f"{problem.mark}: ")), "not bold"))


def harmless(text: str) -> str:
    """Text without control characters, which could affect a terminal, except newlines and tabs."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
