"""`run`: from a run config to a trained model in a folder."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from registry import untrusted
from transformer_kit import seeds
from transformer_kit.convert.companions import carry_in
from transformer_kit.cost.quick import uncompiled
from transformer_kit.model.folder import model_folder
from transformer_kit.model.folder import write as write_model
from transformer_kit.model.given import path_of
from transformer_kit.model.model import Model
from transformer_kit.spec import files
from transformer_kit.spec.read import run_of
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import checkpoint, preflight, rates, snapshot
from transformer_kit.train.allocator import keep_freed
from transformer_kit.train.assemble import assemble, outline, placed, plan, sequence_length
from transformer_kit.train.corpus import Corpus, choose_tokenizer, open_corpus
from transformer_kit.train.errors import OutputError, TrainError
from transformer_kit.train.loop import Loop, Run
from transformer_kit.train.output import Layout, claim, lock, writing
from transformer_kit.train.plot import draw
from transformer_kit.train.plot import read as records
from transformer_kit.train.precision import Placement
from transformer_kit.train.report import Reporter, Silent
from transformer_kit.train.resume import check, known_peak, newest


@dataclass(frozen=True)
class Result:
    """Outcome of a run."""

    layout: Layout
    """Paths of its files."""
    step: int
    """Total number of steps done."""
    loss: float | None
    """Training loss of the last step; None when no step remained."""
    validation_loss: float | None
    """The last validation loss of this process, in nats per token."""
    interrupted: str | None
    """The signal that ended the run early; `run(..., resume=True)` continues it."""


def run(
    spec: str | Path | Mapping[str, Any] | RunSpec,
    out: str | Path,
    *,
    base: str | Path | None = None,
    resume: bool = False,
    source: str | Path | None = None,
    allow_partial: bool = False,
    report: Reporter | None = None,
) -> Result:
    """Train the model of `spec` and write everything into the folder `out`.

    spec           a run spec, or anything that `read` accepts
    base           folder that relative paths in the spec start from; default: the spec's own, or the working folder
    resume         continue from the newest complete checkpoint in `out`, bit for bit on the same machine
    source         a trained folder, or a run's, to start from (fine-tuning): its weights and its tokenizer
    allow_partial  start even when the model differs from the one in `source`
    report         reporter of progress; None reports nothing

    Raises SpecError with all faults of the spec and their places, TrainError for other faults (see `errors`).
    """
    report = Silent() if report is None else report
    base = (files.base(spec) if isinstance(spec, (str, Path)) else Path()) if base is None else Path(base)
    spec = run_of(spec)
    with _apart(spec):
        outlined = preflight.check(spec, base, own_tokenizer=source is None and not resume)
        placement = placed(spec, outlined)
    layout = claim(Path(out), resume=resume)
    with lock(layout), _apart(spec):
        start = _recorded_source(layout) if resume else source
        origin = None if start is None else model_folder(Path(start)).resolve()
        length = sequence_length(spec)
        tokenizer = choose_tokenizer(spec, base, origin, layout.folder if resume else None, report)
        corpus = open_corpus(spec, base, tokenizer, length, report)
        return _train(
            spec, corpus, layout, placement, outlined, report, resume=resume, origin=origin, partial=allow_partial
        )


def train(
    spec: RunSpec, corpus: Corpus, out: str | Path, *, resume: bool = False, report: Reporter | None = None
) -> Result:
    """Like `run`, with a `Corpus` of the caller: for data that no part of the registry describes."""
    with _apart(spec):
        outlined = outline(spec)
        placement = placed(spec, outlined)
    layout = claim(Path(out), resume=resume)
    with lock(layout), _apart(spec):
        told = Silent() if report is None else report
        return _train(spec, corpus, layout, placement, outlined, told, resume=resume, origin=None, partial=False)


def _train(
    spec: RunSpec,
    corpus: Corpus,
    layout: Layout,
    placement: Placement,
    outlined: Model,
    report: Reporter,
    *,
    resume: bool,
    origin: Path | None,
    partial: bool,
) -> Result:
    for text in filter(None, (placement.note, rates.note(spec))):
        report.note(text)
    keep_freed(placement.device)
    saved = newest(layout.checkpoints, report) if resume else None
    # A resumed run has its weights in the checkpoint; the folder that it started from may be gone.
    origin_now = origin if saved is None else None
    partial, peak = partial or resume, 0.0 if saved is None else known_peak(saved, placement)
    made = assemble(
        spec, corpus, layout, placement, outlined, report, source=origin_now, allow_partial=partial, peak=peak
    )
    if resume:
        _go_back(made, saved)
    else:
        _write_page(made, origin)
    report.begin(plan(made))
    loop = Loop(made)
    try:
        interrupted = loop.go()
    finally:
        made.metrics.close()
    _finish(made)
    return Result(layout, loop.step, made.metrics.last_loss, loop.validation_loss, interrupted)


@contextmanager
def _apart(spec: RunSpec) -> Iterator[None]:
    """Inside, global random numbers are the run's; on exit those of the caller are restored.

    Without compilation the compiler is not imported, since that takes longer than all other preparation.
    """
    _check_alone()
    with seeds.scope(spec.train.seed, "run"), nullcontext() if spec.hardware.compile else uncompiled():
        yield


def _check_alone() -> None:
    """Raise TrainError in one of several processes: each would train the whole run, into the same folder."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world.isdecimal() and int(world) > 1:
        raise TrainError(
            f"a run is trained by one process, and WORLD_SIZE says that this is one of {world}; "
            "start it without torchrun, as `kit train RUN`"
        )


def _go_back(made: Run, saved: Path | None) -> None:
    """Restore the run from its checkpoint `saved`, or start at step 0 without one."""
    if saved is None:
        made.report.note(f"{made.layout.checkpoints} holds no checkpoint yet; starting from the first step")
    else:
        header = snapshot.read_header(saved)
        check(saved, header, made.header, made.schedule, made.report)
        snapshot.restore(saved, made.model, made.optimizer)
        made.header = replace(made.header, step=header.step, seconds=header.seconds)
    with writing(made.layout.metrics):
        checkpoint.sweep(made.layout.checkpoints)
        made.metrics.rewind(made.header.step)
        _record(made)
    if made.layout.model.exists() and made.header.step < made.spec.train.steps:
        made.report.note(f"{made.layout.model} keeps the model of an earlier end until this run finishes")
    _note_lost(made)


def _note_lost(made: Run) -> None:
    """Report lost metrics of earlier steps."""
    known = len({record["step"] for record in records(made.layout.metrics)})
    if known < made.header.step:
        lost = f"holds {known} of the {made.header.step} steps that were done; the metrics of the others are lost"
        made.report.note(f"{made.layout.metrics} {lost}")


def _write_page(made: Run, origin: Path | None) -> None:
    """Write the run's spec, as the last preparation: a folder with a spec holds a run that began."""
    layout = made.layout
    with writing(layout.folder):
        if made.corpus.tokenizer is not None:
            made.corpus.tokenizer.save(layout.folder)
        if origin is not None:
            carry_in(origin, layout.folder)
            layout.origin.write_text(json.dumps({"from": str(origin)}), "utf-8")
        _record(made)


def _record(made: Run) -> None:
    """Write the run's current spec atomically."""
    page = made.layout.page
    draft = page.with_name(f".{page.name}.draft")
    draft.write_text(yaml.safe_dump(made.spec.resolved(), sort_keys=False, allow_unicode=True), "utf-8")
    draft.replace(page)


def _recorded_source(layout: Layout) -> str | None:
    if not layout.origin.is_file():
        return None
    try:
        return str(path_of(untrusted.mapping(layout.origin).get("from"), f"{layout.origin}: `from`"))
    except untrusted.FileError as error:
        raise OutputError(str(error)) from error.__cause__
    except ValueError as error:
        raise OutputError(str(error)) from None


def _finish(made: Run) -> None:
    """Write the model folder and the plot of the loss."""
    layout = made.layout
    with writing(layout.model), checkpoint.committed(layout.model) as draft:
        write_model(made.model, draft, made.corpus.tokenizer)
        if layout.origin.is_file():  # the model folder keeps the tokenizer's configuration, chat template included
            carry_in(layout.folder, draft)
    with writing(layout.plot):
        draw(layout.metrics, layout.plot)
