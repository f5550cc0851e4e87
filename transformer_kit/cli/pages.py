"""`kit check`, `kit explain` and `kit schema`: faults of a spec, origins of its values, and its JSON schema."""

import json as codec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transformer_kit.cli import names
from transformer_kit.cli.failures import GOOD, Failure, failure
from transformer_kit.cli.output import Json, emit, fail, note, say

if TYPE_CHECKING:
    from transformer_kit.model.model import Model
    from transformer_kit.spec.schema import Spec

SpecArgument = Annotated[
    str,
    typer.Argument(metavar="SPEC", help="A spec file, or the name of a shipped spec.", autocompletion=names.specs),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace a value, as in model.d_model=64; may be repeated."),
]


def check(
    specs: Annotated[
        list[str],
        typer.Argument(metavar="SPEC...", help="Spec files, or names of shipped specs.", autocompletion=names.specs),
    ],
    sets: Sets = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Check runs as `kit train --from DIR` starts them, from this trained folder.",
            autocompletion=names.folders,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check specs by assembling their models on the meta device; print all faults.

    For a run, it also checks data and tokenizer, and whether its options work with the model.

    Example: `kit check my-model.yaml --set model.d_model=64`
    """
    notes: list[str] = []
    failures = [found for spec in specs if (found := _wrong(spec, sets or [], source, notes)) is not None]
    problems = [problem for found in failures for problem in found.problems]
    code = max((found.code for found in failures), default=GOOD)
    if json:
        emit({"specs": specs, "errors": Failure(code, problems).data(), "notes": notes})
        raise typer.Exit(code)
    for text in notes:
        note(text)
    if problems:
        fail(Failure(code, problems), as_json=False)
    else:
        say(f"{', '.join(specs)}: good", style="green")
    raise typer.Exit(code)


def _wrong(spec: str, sets: list[str], source: Path | None, notes: list[str]) -> Failure | None:
    from transformer_kit.cost.signal import scales
    from transformer_kit.spec.files import base
    from transformer_kit.spec.read import read

    try:
        page = read(spec, sets) if source is None else _from(source, spec, sets)
        model = _assembled(page, base(spec), source)
        unequal = scales(model) if source is None else None  # trained weights have scales of their own
    except (ValueError, OSError) as error:
        return failure(error)
    told = None if unequal is None else unequal.note()
    notes += page._source.notes if told is None else [*page._source.notes, told]
    return None


def _from(source: Path, spec: str, sets: list[str]) -> "Spec":
    from transformer_kit.spec.read import read_run
    from transformer_kit.train.source import page_in

    return read_run(spec, sets, page_in(source))


def _assembled(page: "Spec", folder: Path, source: Path | None) -> "Model":
    """Assemble the model; for a run, also check data, tokenizer, freeze patterns and the start."""
    from transformer_kit.cost.quick import uncompiled
    from transformer_kit.model.build import assemble_distinct
    from transformer_kit.spec.schema import RunSpec

    if not isinstance(page, RunSpec):
        return assemble_distinct(page)[0]
    from transformer_kit.train import preflight, rates
    from transformer_kit.train.source import check as check_source

    with uncompiled():
        model = preflight.check(page, folder, own_tokenizer=source is None)
        if source is not None:
            check_source(source, model)
    page._source.notes.extend(filter(None, [rates.note(page)]))
    return model


def explain(
    spec: SpecArgument,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]", help="Path of a value, as in model.layers.0.ffn.d_ff; default: the whole spec."
        ),
    ] = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Show a value, its origin, and its meaning.

    Example: `kit explain llama-3-8b model.layers.0.ffn.d_ff`
    """
    from transformer_kit.cli.nested import nested
    from transformer_kit.model.provenance import provenance

    found = provenance(spec, path, sets or [])
    if json:
        emit(found.data())
        return
    if path is None:
        for line in nested("", found.value, found.defaults):
            say(line)
        return
    lines = nested(path, found.value, found.defaults)
    for line in lines if len(lines) > 1 else [lines[0].replace(":", " =", 1)]:
        say(line, style="bold")
    say(found.whence())
    if found.documentation:
        say(found.documentation, style="dim")


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it to this file instead of stdout.")
    ] = None,
    json: Json = False,
) -> None:
    """Print the JSON schema of specs, installed plugins included, for editors and other tools.

    Example: `kit schema --out kit.schema.json`, and in a spec:
    `# yaml-language-server: $schema=kit.schema.json`
    """
    from transformer_kit.cli.start import write
    from transformer_kit.spec.json_schema import json_schema

    page = json_schema()
    if out is None:
        emit(page)
        return
    write(out, codec.dumps(page, indent=1) + "\n", replace=True)
    emit({"file": str(out)}) if json else say(f"{out} written")
