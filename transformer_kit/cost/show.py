"""A cost report as plain text, for a `rich` console, and as HTML."""

from collections.abc import Iterator
from html import escape
from itertools import zip_longest
from textwrap import wrap
from typing import Any, NamedTuple

from transformer_kit.cost.figures import Figures
from transformer_kit.cost.signal import Signal
from transformer_kit.cost.tree import Node

COLUMNS = ("", "part", "shapes", "parameters of one")
WIDE = 40
"""Width of a text column, in characters."""


class Row(NamedTuple):
    """One part's line."""

    depth: int
    label: str
    part: str
    shapes: str
    parameters: str

    def cells(self) -> tuple[str, str, str, str]:
        """The columns, the label indented."""
        return "  " * self.depth + self.label, self.part, self.shapes, self.parameters


def text(card: Figures) -> str:
    """The cost report in plain text, columns aligned."""
    lines = [title(card), "", *_aligned([COLUMNS, *(row.cells() for row in rows(card))]), ""]
    for name, figures in sections(card):
        lines += [f"{name:<14}{first}" if i == 0 else f"{'':<14}{first}" for i, first in enumerate(_pairs(figures))]
    lines += [f"{'note':<14}{note}" for note in card.notes]
    return "\n".join(line.rstrip() for line in lines)


def rich(card: Figures) -> Any:
    """The cost report as a renderable of `rich`."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(COLUMNS):
        parts.add_column(column, justify="right" if i == 3 else "left", overflow="fold")
    for row in rows(card):
        label, *others = row.cells()
        parts.add_row(Text(label, style="bold" if row.depth == 0 else ""), *map(Text, others))
    figures = Table(box=None, show_header=False, pad_edge=False)
    for name, found in sections(card):
        for i, line in enumerate(_pairs(found)):
            figures.add_row(Text(name if i == 0 else "", style="bold"), Text(line))
    notes = [Text(f"note: {note}", style="dim") for note in card.notes]
    return Group(Text(title(card), style="bold"), parts, figures, *notes)


def html(card: Figures) -> str:
    """The cost report as HTML tables, with values of the spec escaped."""
    head = "".join(f"<th style='text-align:left'>{escape(c)}</th>" for c in COLUMNS)
    body = "".join(_html_row(row) for row in rows(card))
    figures = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>"
        f"{'<br>'.join(map(escape, _pairs(found)))}</td></tr>"
        for name, found in sections(card)
    )
    notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in card.notes)
    return (
        f"<div><p><b>{escape(title(card))}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<table>{figures}</table>{notes}</div>"
    )


def _html_row(row: Row) -> str:
    label = f"<td style='text-align:left;padding-left:{0.5 + row.depth * 1.2:.1f}em'>{escape(row.label)}</td>"
    middle = "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in (row.part, row.shapes))
    return f"<tr>{label}{middle}<td style='text-align:right'>{escape(row.parameters)}</td></tr>"


def title(card: Figures) -> str:
    """One line: parameters, batch and types."""
    products = "" if card.precision == card.dtype else f", products in {card.precision}"
    return f"{card.parameters.total:,} parameters; {rows_of(card.batch, card.seq)} in {card.dtype}{products}"


def rows_of(batch: int, seq: int) -> str:
    """`1 sequence of 1,024 tokens`."""
    rows = "1 sequence" if batch == 1 else f"{batch:,} sequences"
    return f"{rows} of {seq:,} token{'' if seq == 1 else 's'}"


def rows(card: Figures) -> Iterator[Row]:
    """A line for each part, parents before children."""
    for node in card.parts:
        yield from _rows(node, 0)


def _rows(node: Node, depth: int) -> Iterator[Row]:
    label = node.label if node.count == 1 else f"{node.label}  x{node.count}"
    choices = ", ".join(f"{name} {_value(value)}" for name, value in node.choices.items())
    parameters = f"{node.parameters:,}" if node.parameters else ""
    part = f"{node.part} ({choices})" if choices else node.part
    yield Row(depth, label, part, _shapes(node.shapes), parameters)
    for child in node.children:
        yield from _rows(child, depth + 1)


def _shapes(shapes: dict[str, tuple[int, ...]]) -> str:
    """`q, out 64 x 64; k, v 16 x 64`: names by shape."""
    names: dict[tuple[int, ...], list[str]] = {}
    for name, shape in shapes.items():
        names.setdefault(shape, []).append(name)
    return "; ".join(f"{', '.join(held)} {' x '.join(map(str, shape))}" for shape, held in names.items())


def _value(value: Any) -> str:
    return ", ".join(map(str, value)).join("[]") if isinstance(value, list) else str(value)


def sections(card: Figures) -> Iterator[tuple[str, dict[str, str]]]:
    """Headings, each with its names and values."""
    p, s, decodes = card.parameters, card.state, card.purpose == "decode"
    yield (
        "parameters",
        {
            "total": f"{p.total:,}",
            "non-embedding": f"{p.non_embedding:,}",
            "tied": f"{p.tied:,}",
            "active": f"{p.active:,}",
        },
    )
    training = {} if decodes else {"training": amount(card.flops.train_per_token)}
    yield "FLOPs / token", {"forward": amount(card.flops.forward_per_token), **training}
    memory = decoding(card) if decodes else card.memory._asdict()
    figures = {name.replace("_", " "): size(value) for name, value in memory.items()}
    yield ("decoding" if decodes else "training"), figures
    rows_of = "" if s.batch == 1 else f"{s.batch:,} x "
    yield "decode state", {"each token": size(s.bytes_per_token), f"{rows_of}{s.length:,} tokens": size(s.total)}
    initial = f"not measured: {card.loss.skipped}" if card.loss.initial is None else f"{card.loss.initial:.3f}"
    yield "loss", {"initial": initial, "ln V": f"{card.loss.uniform:.3f}"}
    if card.signal is not None:
        yield "signal", dict(_signal(card.signal))


def _signal(signal: Signal) -> Iterator[tuple[str, str]]:
    """A line for each stage: root mean squares of activations and gradients, and spread of tokens and positions."""
    if signal.skipped is not None:
        yield "stages", f"not measured: {signal.skipped}"
    for stage in signal.stages:
        weights = "" if stage.weights is None else f"   of weights {stage.weights:8.2e}"
        yield stage.name, f"activation {stage.activation:9.4f}   gradient {stage.gradient:8.2e}{weights}"
    if signal.scales is not None:
        tokens, positions = signal.scales
        yield "differ by", f"tokens {tokens:.4f}, positions {positions:.4f}"


def decoding(card: Figures) -> dict[str, int]:
    """Bytes of decoding."""
    weights, state = card.memory.weights, card.state.total
    return {"weights": weights, "decode_state": state, "peak": weights + state}


def size(count: int) -> str:
    """Bytes in the largest unit that fits, in steps of 1024."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.2f} {unit}"


def amount(count: float) -> str:
    """A large number in the largest unit that fits, in steps of 1000."""
    value = float(count)
    for unit in ("", "K", "M", "G", "T", "P"):
        if value < 1000 or unit == "P":
            break
        value /= 1000
    return f"{value:.2f} {unit}".rstrip() if unit else f"{value:.0f}"


def _pairs(figures: dict[str, str]) -> list[str]:
    wide = max(map(len, figures))
    return [f"{name:<{wide}}  {value}" for name, value in figures.items()]


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    """Columns aligned, the last one to the right; cells wider than `WIDE` continue in further lines."""
    lines: list[tuple[str, ...]] = []
    for first, *middle, last in table:
        wrapped = [wrap(cell, WIDE) or [""] for cell in middle]
        for i, cells in enumerate(zip_longest(*wrapped, fillvalue="")):
            lines.append((first if i == 0 else "", *cells, last if i == 0 else ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join([*map(str.ljust, line[:-1], widths), line[-1].rjust(widths[-1])]) for line in lines]
