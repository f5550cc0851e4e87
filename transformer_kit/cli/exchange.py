"""`kit import` and `kit export`: conversion from and to Hugging Face folders."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transformer_kit.cli import names
from transformer_kit.cli.output import Json, emit, note, say

if TYPE_CHECKING:
    from transformer_kit.convert.declaration import Declaration
    from transformer_kit.convert.export import Match


def import_model(
    source: Annotated[
        Path, typer.Argument(metavar="HF_FOLDER", help="config.json, safetensors, and tokenizer files if any.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    spec_only: Annotated[bool, typer.Option("--spec-only", help="Read config.json alone; no weights.")] = False,
    pad_vocab: Annotated[
        bool, typer.Option("--pad-vocab", help="Add rows to the vocabulary for ids that only the tokenizer has.")
    ] = False,
    family: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A declaration of a family that the kit does not know.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a kit folder from a Hugging Face folder: a short spec, the weights, the tokenizer.

    Example: `kit import ~/models/SmolLM-135M runs/smollm`
    """
    from transformer_kit.convert.importing import import_folder

    came = import_folder(source, out, spec_only=spec_only, pad_vocab=pad_vocab, declaration=_declared(family))
    if json:
        emit(
            {
                "folder": str(out),
                "family": came.family,
                "tensors": came.tensors,
                "tokenizer": came.tokenizer,
                "hash": came.spec.hash,
                "not_taken": came.left,
                "note": "; ".join(came.notes) or None,
            }
        )
        return
    what = "the spec alone" if spec_only else f"{came.tensors} tensors"
    say(f"{out}: {came.family}, {what}{'' if came.tokenizer else ', no tokenizer'}; see {out / 'spec.yaml'}")
    if came.left:
        say(f"not taken: {', '.join(came.left)}")
    for text in came.notes:
        note(text)


def export_model(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A model's folder, or the folder of a run.", autocompletion=names.folders),
    ],
    out: Annotated[Path, typer.Argument(metavar="HF_FOLDER", help="Folder to make.")],
    family: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL_TYPE|FILE",
            help="This family, or the one that FILE.yaml declares; default: the first that fits.",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(help="Compare logits with transformers, where installed; takes memory for the model twice."),
    ] = True,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="float32, bfloat16 or float16; default: the type of the weights."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a Hugging Face folder from a kit folder, in the first family with exactly the same computation.

    The new files are loaded again and compared; with transformers installed, logits are compared as well.
    A run's weights are float32, also where it started from others: `--dtype bfloat16` halves the folder.
    Example: `kit export runs/quickstart exported`
    """
    match, stored = _exported(folder, out, family, compare, dtype)
    kind, name = ", ".join(match.declaration.classes), match.declaration.names[0]
    difference, why_not = match.comparison.difference, match.comparison.why_not
    if json:
        told = {"folder": str(out), "family": name, "class": kind, "dtype": stored}
        emit({**told, "difference": difference, "why_not": why_not})
        return
    seen = f"logits not compared: {why_not}"
    if difference is not None:
        seen = f"largest difference of logits to transformers {difference:.2g}"
    say(f"{out}: {kind or name}, {stored}; all tensors read back bit for bit; {seen}")


def _exported(folder: Path, out: Path, family: str | None, compare: bool, dtype: str | None) -> "tuple[Match, str]":
    """Export, and return the type; a model that no class computes is a fault of the spec, with its lines."""
    from transformer_kit.cli.where import placed
    from transformer_kit.convert.errors import ConvertError
    from transformer_kit.convert.export import export
    from transformer_kit.data.tokenizer_file import load_tokenizer
    from transformer_kit.model.folder import load, model_folder
    from transformer_kit.model.types import words
    from transformer_kit.spec.errors import SpecError

    place = model_folder(folder)
    model = load(place, dtype=placed("cpu", dtype)[1])
    tokenizer = load_tokenizer(place) if (place / "tokenizer.json").is_file() else None
    chosen = _declared(Path(family)) if family is not None and family.endswith((".yaml", ".yml")) else family
    try:
        match = export(model, out, tokenizer, family=chosen, beside=place, compare=compare)
    except ConvertError as error:
        if error.placed:
            raise SpecError([*error.placed]) from error
        raise
    return match, words([model.embedding.weight.dtype])


def _declared(family: Path | None) -> "Declaration | None":
    if family is None:
        return None
    from transformer_kit.convert.declaration import read

    return read(family)
