"""`kit build`: assembles a model without memory for its weights, and prints what it is and what it costs."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from transformer_kit.cli.failures import FIT, NotFitting
from transformer_kit.cli.output import Json, console, emit, is_terminal, note, say
from transformer_kit.cli.pages import Sets, SpecArgument

if TYPE_CHECKING:
    from transformer_kit.cost.card import Card

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{unit}i": 1024**i for i, unit in enumerate("KMGT", 1)}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?i?)B?")


def build(
    spec: SpecArgument,
    sets: Sets = None,
    batch: Annotated[int, typer.Option(help="Sequences in one forward pass.")] = 1,
    seq: Annotated[int | None, typer.Option(help="Tokens of a sequence; max_seq_len when not given.")] = None,
    dtype: Annotated[str, typer.Option(help="Type of weights and activations.")] = "float32",
    optimizer: Annotated[
        str | None, typer.Option(help="The optimizer whose state is counted; a run's own when not given.")
    ] = None,
    fits: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Exit with 4 when training takes more, as in 24GiB.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what a model costs: parameters, arithmetic, memory in training and in decoding, counted on the model.

    Nothing is allocated, so the largest model is shown on the smallest machine.

    Example: `kit build llama-3-8b --batch 4 --seq 2048 --fits 80GiB`
    """
    from transformer_kit.cost.card import card
    from transformer_kit.cost.show import size
    from transformer_kit.spec.read import read

    limit = None if fits is None else _size(fits)
    page = read(spec, sets or [])
    found = card(page, batch=batch, seq=seq, dtype=dtype, optimizer=optimizer)
    needed = found.memory.peak
    too_large = limit is not None and needed > limit
    if json:
        emit(found.data() | ({} if limit is None else {"fits": not too_large}))
    else:
        _print(found, page._source.notes)
    if too_large and json:
        raise typer.Exit(FIT)
    if too_large:
        raise NotFitting(f"a training step takes {size(needed)}, more than {fits}")


def _print(found: "Card", notes: list[str]) -> None:
    for text in notes:
        note(text)
    if is_terminal():
        console().print(found.rich(), soft_wrap=False)
    else:
        say(found.text())


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"must be a size such as 24GiB, got '{text}'")
    return int(float(match[1]) * _UNITS[match[2]])
