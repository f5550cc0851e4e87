"""`kit train`: trains a model from a run config."""

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transformer_kit.cli import names
from transformer_kit.cli.failures import INTERRUPTED
from transformer_kit.cli.output import Json, console, emit, rows, say
from transformer_kit.cli.pages import Sets

if TYPE_CHECKING:
    from transformer_kit.spec.schema import RunSpec
    from transformer_kit.train.launch import Result


def train(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run config, or the name of one.", autocompletion=names.runs)
    ],
    sets: Sets = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; default: runs/NAME of the spec.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest checkpoint.")] = False,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Start from this trained folder.", autocompletion=names.folders),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Start even when not all of its tensors fit.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model; checkpoints, metrics, samples, a plot of the loss and the model are written into one folder.

    Ctrl-C saves and stops; --resume continues as without interruption. With --json each event is a line of JSON.

    Example: `kit train quickstart --set train.steps=100 --out runs/first`
    """
    if resume and source is not None:
        raise typer.BadParameter("--resume keeps the start of the run; leave --from out")
    if allow_partial and source is None:
        raise typer.BadParameter("--allow-partial requires a trained folder; give it by --from")
    folder = out or Path("runs") / Path(run).stem
    again = _again(run, sets or [], folder)
    try:
        spec, result = _run(run, sets or [], folder, resume, source, allow_partial, json)
    except KeyboardInterrupt:
        saved = folder.joinpath("checkpoints").is_dir()
        hint = f"; resume from the last checkpoint with: {again}" if saved else ", before the first checkpoint"
        console(stderr=True).print(f"stopped at once{hint}")
        raise typer.Exit(INTERRUPTED) from None
    emit({"event": "end", **_data(result)}, line=True) if json else _tell(spec, result, again)
    if result.interrupted is not None:
        raise typer.Exit(128 + signal.Signals[result.interrupted])


def _run(
    run: str, sets: list[str], folder: Path, resume: bool, source: Path | None, allow_partial: bool, as_json: bool
) -> "tuple[RunSpec, Result]":
    from transformer_kit.cli.progress import reporter
    from transformer_kit.spec import files
    from transformer_kit.spec.read import read_run
    from transformer_kit.train.launch import run as launch

    spec = read_run(run, sets, _trained(folder, resume, source))
    report = reporter(as_json=as_json)
    for text in spec._source.notes:
        report.note(text)
    try:
        result = launch(
            spec, folder, base=files.base(run), resume=resume, source=source, allow_partial=allow_partial, report=report
        )
    finally:
        report.close()
    return spec, result


def _trained(folder: Path, resume: bool, source: Path | None) -> "Path | dict[str, object] | None":
    """The spec whose model is trained when the run config has none of its own."""
    from transformer_kit.train.source import page_in, page_of_run

    if resume:
        return page_of_run(folder)
    return None if source is None else page_in(source)


def _data(result: "Result") -> dict[str, object]:
    layout = result.layout
    return {
        "step": result.step,
        "loss": result.loss,
        "validation_loss": result.validation_loss,
        "interrupted": result.interrupted,
        "folder": str(layout.folder),
        "model": str(layout.model),
        "plot": str(layout.plot),
        "metrics": str(layout.metrics),
    }


def _tell(spec: "RunSpec", result: "Result", again: str) -> None:
    layout = result.layout
    if result.interrupted is not None:
        say(f"stopped by {result.interrupted} after step {result.step}, saved; resume with: {again}", "bold")
        return
    losses = [
        f"{n} {x:.4f}" for n, x in (("loss", result.loss), ("validation", result.validation_loss)) if x is not None
    ]
    say(f"done: {result.step} steps  {'  '.join(losses)}".rstrip(), style="bold green")
    rows([("model", str(layout.model)), ("loss", str(layout.plot)), ("metrics", str(layout.metrics))])
    prompt = spec.sample.prompt if spec.sample is not None and spec.sample.prompt.strip() else "The "
    say(f"try it: {shlex.join(['kit', 'generate', str(layout.folder), prompt])}")


def _again(run: str, sets: list[str], folder: Path) -> str:
    """The command that resumes the run."""
    changes = [word for change in sets for word in ("--set", change)]
    return shlex.join(["kit", "train", run, *changes, "--out", str(folder), "--resume"])
