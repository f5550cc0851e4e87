"""`kit build`: assembles a model without memory for its weights, and prints what it is and what it costs."""

import re
from typing import Annotated, Any

import typer

from transformer_kit.cli.failures import NotFitting
from transformer_kit.cli.output import Json, console, emit, note
from transformer_kit.cli.pages import Sets, SpecArgument

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{unit}i": 1024**i for i, unit in enumerate("KMGT", 1)}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?i?)B?")


def build(
    spec: SpecArgument,
    sets: Sets = None,
    batch: Annotated[int, typer.Option(help="Sequences in one forward pass.")] = 1,
    seq: Annotated[int | None, typer.Option(help="Tokens of a sequence; max_seq_len when not given.")] = None,
    dtype: Annotated[str, typer.Option(help="Type of weights and activations.")] = "bfloat16",
    optimizer: Annotated[str | None, typer.Option(help="The optimizer whose state is counted.")] = None,
    fits: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Exit with 4 when training takes more, as in 24GiB.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what a model costs: parameters, arithmetic, memory in training and in decoding, counted on the model.

    Nothing is allocated, so the largest model is shown on the smallest machine.

    Example: [bold]kit build llama-3-8b --batch 4 --seq 2048 --fits 80GiB[/]
    """
    from transformer_kit.cost.card import card
    from transformer_kit.spec.read import read

    limit = None if fits is None else _size(fits)
    page = read(spec, sets or [])
    found = card(page, **_given(batch=batch, seq=seq, dtype=dtype, optimizer=optimizer))
    if not json:
        for text in page._source.notes:
            note(text)
    needed = found.data()["memory"]["total"]
    if json:
        emit(found.data())
    else:
        out = console()
        out.print(found.rich() if out.is_terminal else found.text())
    if limit is not None and needed > limit:
        raise NotFitting(f"training takes {needed / 2**30:.2f} GiB, more than {fits}")


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"must be a size such as 24GiB, got '{text}'")
    return int(float(match[1]) * _UNITS[match[2]])
