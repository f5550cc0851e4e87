"""Builds the pieces of a run from its spec: trackers, optimizer, FLOP counter, checkpoint header."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from registry import core
from registry.contracts import Objective, Schedule, Tracker
from transformer_kit.machine import free_memory
from transformer_kit.model.build import build
from transformer_kit.model.model import Model
from transformer_kit.spec.place import at
from transformer_kit.spec.schema import RunSpec, Spec
from transformer_kit.train import snapshot
from transformer_kit.train.corpus import Corpus
from transformer_kit.train.errors import RoomError
from transformer_kit.train.finetune import start_from
from transformer_kit.train.loop import Run
from transformer_kit.train.metrics import Metrics
from transformer_kit.train.output import Layout, check_space, size
from transformer_kit.train.precision import Placement, place
from transformer_kit.train.report import Plan, Reporter
from transformer_kit.train.resume import identity, machine
from transformer_kit.train.sample import cropped, writer
from transformer_kit.train.snapshot import Header
from transformer_kit.train.throughput import Meter, flops_per_token, peak_flops
from transformer_kit.transform.activation_checkpointing import activation_checkpointing
from transformer_kit.transform.compile import compile_layers
from transformer_kit.transform.freeze import freeze
from transformer_kit.transform.materialize import fill, materialize
from transformer_kit.transform.onednn_linear import onednn_linear
from transformer_kit.transform.optimizer_in_backward import OptimizerInBackward
from transformer_kit.transform.pipeline import transformed


def sequence_length(spec: RunSpec) -> int:
    """Tokens of a training sequence. SpecError when it is more than the model takes."""
    limit = spec.model.max_seq_len
    wanted = limit if spec.train.seq_len is None else spec.train.seq_len
    with at(spec, "train", "seq_len"):
        if wanted > limit:
            raise ValueError(f"must be at most model.max_seq_len ({limit}), got {wanted}")
    return wanted


def architecture(spec: RunSpec) -> Spec:
    """The model spec inside a run config."""
    page = Spec(kit=spec.kit, plugins=spec.plugins, model=spec.model)
    page._source = spec._source
    return page


def outline(spec: RunSpec) -> Model:
    """The model on the meta device, frozen as in training. SpecError for a wrong model or a wrong freeze pattern."""
    model = build(architecture(spec), device="meta", kernel=spec.hardware.kernel)
    with at(spec, "train", "freeze"):
        return transformed(model, freeze=partial(freeze, patterns=spec.train.freeze))


def learner(spec: RunSpec, placement: Placement) -> Model:
    """The model in memory with initial weights, after all transforms that need no optimizer."""
    hardware, device = spec.hardware, placement.device
    in_float32 = device.type == "cpu" and placement.dtype == torch.float32
    return transformed(
        outline(spec),
        onednn_linear=onednn_linear if in_float32 else None,
        activation_checkpointing=activation_checkpointing if hardware.activation_checkpointing else None,
        compile=compile_layers if hardware.compile else None,
        materialize=partial(materialize, device=device),
        fill=partial(fill, seed=spec.train.seed),
    )


def placed(spec: RunSpec, outlined: Model) -> Placement:
    """Device and precision of the run. RoomError when weights and gradients do not fit into memory."""
    with at(spec, "hardware", "device"):
        placement = place(spec.hardware)
    gradients = [p.nbytes for p in outlined.parameters() if p.requires_grad]
    there = max(gradients, default=0) if spec.hardware.optimizer_in_backward else sum(gradients)
    needed = sum(p.nbytes for p in outlined.parameters()) + there
    free = free_memory(placement.device)
    if free is not None and needed > free:
        raise RoomError(
            f"weights and gradients take {size(needed)}, {placement.device} has {size(free)} free; "
            "`kit build` shows what the model costs"
        )
    return placement


def assemble(
    spec: RunSpec,
    corpus: Corpus,
    layout: Layout,
    placement: Placement,
    outlined: Model,
    report: Reporter,
    *,
    source: Path | None,
    allow_partial: bool,
    peak: float = 0.0,
) -> Run:
    """A run at step 0: the model with initial weights, or with those of the trained folder `source`.

    `outlined` is the model on the meta device, for counting FLOPs; `peak` is the peak FLOP/s that MFU used so far.
    """
    model = learner(spec, placement)
    if source is not None:
        start_from(source, model, allow_partial=allow_partial, report=report)
    objective, schedule = parts(spec)
    model, optimizer, in_backward = _with_optimizer(spec, model)
    meter = _meter(spec, outlined, objective, placement, report, peak)
    _note_space(spec, model, layout, report)
    return Run(
        spec=spec,
        layout=layout,
        placement=placement,
        model=model,
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        corpus=corpus,
        header=Header(0, identity(spec), corpus.fingerprints, machine(placement), 0.0, meter.peak),
        meter=meter,
        metrics=Metrics(trackers(spec, layout.folder), report, meter, spec.train.steps),
        report=report,
        optimizer_in_backward=in_backward,
        write_sample=_writer(spec, model, corpus, placement, report),
    )


def _with_optimizer(spec: RunSpec, model: Model) -> tuple[Model, Optimizer, OptimizerInBackward | None]:
    with at(spec, "optimizer"):
        optimizer = spec.optimizer.part(spec.optimizer).make(model)
    in_backward = OptimizerInBackward(optimizer) if spec.hardware.optimizer_in_backward else None
    return transformed(model, optimizer_in_backward=in_backward), optimizer, in_backward


def plan(run: Run) -> Plan:
    """Facts about a run before it starts."""
    train, parameters = run.spec.train, list(run.model.parameters())
    return Plan(
        folder=run.layout.folder,
        start=run.header.step,
        steps=train.steps,
        tokens_per_step=run.meter.tokens_per_step,
        parameters=sum(p.numel() for p in parameters),
        learning=sum(p.numel() for p in parameters if p.requires_grad),
        device=str(run.placement.device),
        precision=str(run.placement.dtype).removeprefix("torch."),
        flops_per_token=run.meter.flops_per_token,
        peak_flops=run.meter.peak,
    )


def parts(spec: RunSpec) -> tuple[Objective, Schedule]:
    """The objective and the learning rate schedule. SpecError when their options are invalid."""
    with at(spec, "objective"):
        objective = spec.objective.part(spec.objective)
    with at(spec, "schedule"):
        schedule = spec.schedule.part(spec.schedule)
    return objective, schedule


def trackers(spec: RunSpec, folder: Path) -> list[Tracker]:
    """Trackers of the spec, and the default trackers, which are always on."""
    chosen = [*spec.trackers]
    names = {options.part.name for options in chosen}
    always = RunSpec.model_fields["trackers"].default
    chosen += [core.get("tracker", name).Options() for name in always if name not in names]
    with at(spec, "trackers"):
        return [o.part(o, folder) for o in chosen]


def _meter(
    spec: RunSpec, outlined: Model, objective: Objective, placement: Placement, report: Reporter, peak: float
) -> Meter:
    length = sequence_length(spec)
    try:
        flops = flops_per_token(outlined, objective, length, document_mask=spec.train.document_mask)
    except (RuntimeError, NotImplementedError) as error:
        flops = 0.0
        report.note(f"FLOPs cannot be counted, so there is no MFU: {str(error).splitlines()[0]}")
    tokens = spec.train.batch_size * spec.train.gradient_accumulation * length
    if flops and (spec.hardware.peak_tflops or not peak):
        peak, note = peak_flops(placement, spec.hardware.peak_tflops)
        if note is not None:
            report.note(note)
    return Meter(tokens, flops, peak if flops else 0.0)


def _note_space(spec: RunSpec, model: nn.Module, layout: Layout, report: Reporter) -> None:
    # Two values for each trainable parameter, as Adam keeps; few optimizers keep more.
    weights = sum(t.nbytes for t in snapshot.live(model).values())
    state = 2 * sum(p.nbytes for p in model.parameters() if p.requires_grad)
    note = check_space(layout.folder, weights + state, spec.checkpoint.keep)
    if note is not None:
        report.note(note)


def _writer(
    spec: RunSpec, model: Model, corpus: Corpus, placement: Placement, report: Reporter
) -> Callable[[], str] | None:
    if spec.sample is None or corpus.tokenizer is None:
        return None
    if (told := cropped(spec, spec.sample, corpus.tokenizer)) is not None:
        report.note(told)
    write = writer(model, corpus.tokenizer, spec.sample, spec.train, placement)
    return _uncompiled(write) if spec.hardware.compile else write


def _uncompiled(write: Callable[[], str]) -> Callable[[], str]:
    """`write` without compilation, which would run again for each length."""

    def plainly() -> str:
        with torch.compiler.set_stance("force_eager"):
            return write()

    return plainly
