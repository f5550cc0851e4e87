"""`kit build`: assembles a model on the meta device, and prints its cost report."""

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transformer_kit.cli.failures import FIT, NotFitting
from transformer_kit.cli.output import Json, console, emit, is_terminal, note, say
from transformer_kit.cli.pages import Sets, SpecArgument

if TYPE_CHECKING:
    from transformer_kit.cost.card import Card
    from transformer_kit.cost.fits import Fit
    from transformer_kit.spec.schema import Spec

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{unit}i": 1024**i for i, unit in enumerate("KMGT", 1)}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?i?)B?")


Batch = Annotated[int | None, typer.Option(help="Sequences in one forward pass; default: the run's, or 1.")]
Seq = Annotated[int | None, typer.Option(help="Tokens of a sequence; default: the run's, or max_seq_len.")]
Dtype = Annotated[str, typer.Option(help="Type of weights and activations.")]
Optimizer = Annotated[str | None, typer.Option(help="The optimizer whose state is counted; default: the run's.")]
Checkpointing = Annotated[
    bool, typer.Option("--activation-checkpointing", help="Layers recompute activations in the backward pass.")
]
InBackward = Annotated[
    bool, typer.Option("--optimizer-in-backward", help="The optimizer steps in the backward pass and frees gradients.")
]
Precision = Annotated[
    str | None,
    typer.Option(help="Type of products in training with float32 weights: float32 or bfloat16; default: the run's."),
]
Fits = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Find the largest batch that fits, as into 24GiB; with --batch, the context."),
]
Purpose = Annotated[
    str | None,
    typer.Option("--for", metavar="train|decode", help="What to report, and what --fits makes room for."),
]
Signal = Annotated[
    bool, typer.Option("--signal", help="Measure activations and gradients at initialization, stage by stage.")
]


def build(
    spec: SpecArgument,
    sets: Sets = None,
    batch: Batch = None,
    seq: Seq = None,
    dtype: Dtype = "float32",
    optimizer: Optimizer = None,
    activation_checkpointing: Checkpointing = False,
    optimizer_in_backward: InBackward = False,
    precision: Precision = None,
    fits: Fits = None,
    purpose: Purpose = None,
    signal: Signal = False,
    json: Json = False,
) -> None:
    """Show what a model costs: parameters, arithmetic, memory in training and in decoding, counted on the model.

    Nothing is allocated, so a small machine can show the largest model. With --fits, the report is that of the largest
    batch that fits, or with --batch of the longest context; with --batch and --seq, exit code 4 says that these do
    not fit.

    Example: `kit build llama-3-8b --seq 2048 --activation-checkpointing --fits 160GiB`
    """
    from transformer_kit.cost.card import card
    from transformer_kit.spec.read import read

    page = read(spec, sets or [])
    chosen: dict[str, Any] = {"dtype": dtype, "optimizer": optimizer, "precision": precision}
    chosen["activation_checkpointing"] = activation_checkpointing or None
    chosen["optimizer_in_backward"] = optimizer_in_backward or None
    fit, what = None, _purpose(purpose, precision)
    if fits is not None:
        fit = _fit(page, _size(fits), what, batch, seq, chosen)
        batch, seq = fit.batch, fit.seq
    found = card(page, batch=batch, seq=seq, signal=signal, purpose=what, **chosen)
    _print(found, fit, page._source.notes, json)
    if fit is not None and not fit.fits:
        raise typer.Exit(FIT) if json else NotFitting(_too_large(fit))


def _fit(page: "Spec", limit: int, purpose: str, batch: int | None, seq: int | None, chosen: dict[str, Any]) -> "Fit":
    """The largest value that fits of batch or context, whichever is not given."""
    from transformer_kit.cost import fits
    from transformer_kit.cost.plan import planned

    with planned(page, **chosen) as plan:
        if batch is None:
            return fits.largest_batch(plan, purpose, limit, seq=plan.length(seq))
        if seq is None:
            return fits.longest_context(plan, purpose, limit, batch=plan.batch(batch))
        return fits.check(plan, purpose, limit, batch=plan.batch(batch), seq=plan.length(seq))


def _print(found: "Card", fit: "Fit | None", notes: list[str], json: bool) -> None:
    if json:
        emit(found.data() | ({} if fit is None else {"fits": fit._asdict() | {"fits": fit.fits}}))
        return
    for text in notes:
        note(text)
    if is_terminal():
        console().print(found.rich(), soft_wrap=False)
    else:
        say(found.text())
    if fit is not None and fit.fits:
        say(_in_words(fit), style="bold")


def _in_words(fit: "Fit") -> str:
    """The size that fits, and the bytes of the next larger one."""
    from transformer_kit.cost.show import rows_of, size

    what = "a training step takes" if fit.purpose == "train" else "weights and decode state take"
    more = "" if fit.beyond is None else f"; the next larger takes {size(fit.beyond)}"
    return f"fits          {rows_of(fit.batch, fit.seq)}: {what} {size(fit.needs)} of {size(fit.limit)}{more}"


def _too_large(fit: "Fit") -> str:
    from transformer_kit.cost.show import rows_of, size

    what = "a training step with {} takes" if fit.purpose == "train" else "weights and the decode state of {} take"
    return f"{what.format(rows_of(fit.batch, fit.seq))} {size(fit.needs)}, more than {size(fit.limit)}"


def _purpose(text: str | None, precision: str | None) -> str:
    from transformer_kit.cost.fits import PURPOSES

    if text is None:
        return PURPOSES[0]
    if text not in PURPOSES:
        raise typer.BadParameter(f"--for must be {' or '.join(PURPOSES)}, got '{text}'")
    if text == "decode" and precision is not None:
        raise typer.BadParameter("--precision is for training; with --for decode, set the type of weights by --dtype")
    return text


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"--fits must be a size such as 24GiB, 24GB or 512MiB, got '{text}'")
    return int(float(match[1]) * _UNITS[match[2]])
