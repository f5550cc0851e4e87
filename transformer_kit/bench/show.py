"""A comparison as text and as a Markdown table."""

from transformer_kit.bench.run import Result, Row
from transformer_kit.cost.show import amount, size


def text(result: Result) -> str:
    """Plain, aligned lines."""
    lines = [_title(result), f"on {result.machine}, {result.dtype}", ""]
    table = [_heads(result), *(_cells(result, row) for row in result.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]))
    lines += ["", *_notes(result)]
    return "\n".join(lines).rstrip()


def markdown(result: Result) -> str:
    """A heading, a table and notes."""
    lines = [f"### {_title(result)}", "", " | ".join(["", *_heads(result), ""]).strip()]
    lines.append("|" + "---|" + "---:|" * (len(_heads(result)) - 1))
    lines += [" | ".join(["", *_cells(result, row), ""]).strip() for row in result.rows]
    return "\n".join([*lines, "", *_notes(result)]).rstrip()


def _title(result: Result) -> str:
    rows = "1 row" if result.batch == 1 else f"{result.batch} rows"
    what = {
        "train": f"training step, {rows} of {result.seq} tokens",
        "prefill": f"prompt, {rows} of {result.seq} tokens",
        "decode": f"decoding, {rows}, {result.new} tokens after {result.seq}",
        "memory": f"peak memory of a training step, {rows} of {result.seq} tokens",
    }
    return f"{result.spec}: {what[result.work]}"


def _heads(result: Result) -> tuple[str, ...]:
    if result.work == "memory":
        return ("", "parameters", "peak", "kit / this")
    return ("", "parameters", "median", "minimum", "kit / this", "of minima", "tokens/s", "of the limit")


def _cells(result: Result, row: Row) -> tuple[str, ...]:
    if result.work == "memory":
        return (row.name, f"{row.parameters:,}", size(int(row.median)), f"{row.ratio:.2f}")
    return (
        row.name,
        f"{row.parameters:,}",
        _seconds(row.median),
        _seconds(row.minimum),
        f"{row.ratio:.3f}",
        f"{row.ratio_of_minima:.3f}",
        f"{row.tokens_per_second:,.4g}" if row.tokens_per_second else "",
        f"{row.share:.0%}" if row.share else "",
    )


def _notes(result: Result) -> list[str]:
    notes = [f"{name}: {reason}" for name, reason in result.absent.items()]
    if result.limit is not None and result.peak_flops and result.bandwidth:
        peak, reads = amount(result.peak_flops), size(int(result.bandwidth))
        limit = f"limit {_seconds(result.limit)}: {peak}FLOP/s and {reads}/s"
        notes.insert(0, f"{limit}, medians of what was measured before each round")
    return notes


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 1 else f"{value * 1e3:.4g} ms"
