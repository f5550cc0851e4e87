"""What is to be counted: a model on the meta device, and the run that it is to take part in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from registry import core
from registry.contracts import Objective
from registry.options import Options
from transformer_kit.cost import count
from transformer_kit.cost.count import Kind, Places
from transformer_kit.cost.meter import Work, torch_functions
from transformer_kit.cost.quick import uncompiled
from transformer_kit.cost.timeline import Timeline
from transformer_kit.model.build import assemble, assemble_distinct
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import RunSpec, Spec
from transformer_kit.transform import activation_checkpointing as transform
from transformer_kit.transform.freeze import freeze
from transformer_kit.transform.pipeline import transformed

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "auto": None}
"""What products are made in, where weights are in float32 and products may differ; `auto` is counted as float32."""
DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.bfloat16, torch.float16, torch.float64)}


class Memory(NamedTuple):
    """Bytes of one training step on one device."""

    weights: int
    gradients: int
    """Those that are there when the optimizer steps."""
    optimizer: int
    activations: int
    """Alive when the last norm's output reaches the head; in mixed precision also the weights that were cast."""
    logits: int
    """What head and loss add to the activations: logits, and the first gradients."""
    peak: int
    """The most that is alive at one time: less than the sum, since gradients come while activations go."""


@dataclass(frozen=True)
class Plan:
    """A model and how it is to be trained. Made by `planned`."""

    page: Spec
    model: Model
    """On the meta device."""
    places: Places | None
    """The layers that each of the model's stands for; each for itself when None."""
    dtype: str
    precision: str | None
    """What training multiplies, of weights in float32: one of PRECISIONS; None when nobody says it."""
    optimizer: Options | None
    """None when two values are assumed for each parameter."""
    activation_checkpointing: bool
    """Whether layers recompute their activations in the backward pass."""
    optimizer_in_backward: bool
    """Whether the optimizer steps in the backward pass, and gradients go at once."""
    objective: Objective
    stack: list[Kind]

    def batch(self, given: int | None) -> int:
        """Rows of a forward pass: as given, else the run's, else 1. ValueError when they cannot be."""
        if given is None:
            return self.page.train.batch_size if isinstance(self.page, RunSpec) else 1
        if given < 1:
            raise ValueError(f"batch must be at least 1, got {given}")
        return given

    def length(self, given: int | None) -> int:
        """Tokens of a row: as given, else the run's, else the model's limit. ValueError when they cannot be."""
        limit = self.page.model.max_seq_len
        if given is None:
            given = self.page.train.seq_len if isinstance(self.page, RunSpec) else None
            given = limit if given is None else given
        if not 1 <= given <= limit:
            raise ValueError(f"seq must be from 1 to max_seq_len ({limit}), got {given}")
        return given

    def timeline(self, batch: int, seq: int) -> Timeline:
        """A forward and backward pass of `batch` rows of `seq` tokens. ValueError when tensors are too large."""
        work = Work(
            self.objective,
            batch,
            seq,
            document_mask=isinstance(self.page, RunSpec) and self.page.train.document_mask,
            accumulates=self._accumulates,
            optimizer_in_backward=self.optimizer_in_backward,
            mixed=mixed(self.precision),
        )
        try:
            return count.usage(self.model, self.stack, work)
        except RuntimeError as error:
            if "overflow" not in str(error):
                raise
            raise ValueError(
                f"batch {batch} of {seq} tokens needs tensors of more bytes than there are addresses; "
                f"choose a smaller batch or seq"
            ) from None

    def memory(self, timeline: Timeline) -> Memory:
        """Bytes of a training step whose passes are like `timeline`."""
        weights = count.weight_bytes(self.model, self.places)
        gradients = self._gradient_bytes()
        optimizer = self.optimizer_bytes()
        passes = timeline.whole().peak
        # With accumulation, gradients outlive a pass. Without, they are all there when the optimizer steps.
        moving = gradients + passes if self._accumulates else max(gradients, passes)
        return Memory(
            weights=weights,
            gradients=gradients,
            optimizer=optimizer,
            activations=timeline.before_head().net,
            logits=timeline.head.peak,
            peak=weights + optimizer + moving,
        )

    def optimizer_bytes(self) -> int:
        """Bytes that the optimizer keeps."""
        if self.optimizer is None:
            return 2 * count.gradient_bytes(self.model, self.places)
        return count.optimizer_bytes(self.model, self.optimizer, self.places)

    def _gradient_bytes(self) -> int:
        """Bytes of the gradients that are there when the optimizer steps: of the largest alone, or all."""
        if self.optimizer_in_backward:
            return max((p.nbytes for p in self.model.parameters() if p.requires_grad), default=0)
        return count.gradient_bytes(self.model, self.places)

    @property
    def _accumulates(self) -> bool:
        return isinstance(self.page, RunSpec) and self.page.train.gradient_accumulation > 1


@contextmanager
def planned(
    page: Spec,
    *,
    dtype: str,
    optimizer: str | Options | None,
    activation_checkpointing: bool | None,
    optimizer_in_backward: bool | None = None,
    precision: str | None = None,
) -> Iterator[Plan]:
    """The plan of `page`, with the plugins it names, as long as it is needed. What is None is the run's."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got '{dtype}'")
    run = page if isinstance(page, RunSpec) else None
    checkpointing, in_backward = activation_checkpointing, optimizer_in_backward
    if checkpointing is None:
        checkpointing = run is not None and run.hardware.activation_checkpointing
    if in_backward is None:
        in_backward = run is not None and run.hardware.optimizer_in_backward
    if in_backward and run is not None and run.train.gradient_accumulation > 1:
        given = run.train.gradient_accumulation
        raise ValueError(f"optimizer_in_backward accumulates no gradients, but train.gradient_accumulation is {given}")
    learning = torch.inference_mode(False), torch.enable_grad()  # which is counted, whatever the caller is doing
    with core.activate(frozenset(page.plugins)), uncompiled(), learning[0], learning[1]:
        chosen, products = _optimizer(run, optimizer), _precision(run, dtype, precision)
        objective = _objective(run)
        model, places = _assembled(page)
        checkpoint = partial(transform.activation_checkpointing, inside=torch_functions) if checkpointing else None
        model = transformed(model.to(DTYPES[dtype]), activation_checkpointing=checkpoint)
        stack = count.kinds(model, places)
        yield Plan(page, model, places, dtype, products, chosen, checkpointing, in_backward, objective, stack)


def mixed(precision: str | None) -> torch.dtype | None:
    """What products are made in that are not in the type of their weights; None where they are."""
    return None if precision is None else PRECISIONS[precision]


def _assembled(page: Spec) -> tuple[Model, Places | None]:
    """The model, equal layers once; but all of them where some are frozen, which is by name."""
    if not isinstance(page, RunSpec):
        return assemble_distinct(page)
    if not page.train.freeze:
        return assemble_distinct(page, page.hardware.kernel)
    return freeze(assemble(page, page.hardware.kernel), page.train.freeze), None


def _precision(run: RunSpec | None, dtype: str, given: str | None) -> str | None:
    """What products are made in: as given, else as the run says, which may be `auto`; None where nobody says it."""
    if given is not None and given not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got '{given}'")
    if dtype != "float32":
        if given is not None:
            raise ValueError(f"precision {given} is of weights in float32, not {dtype}; leave out precision or dtype")
        return None
    return given if given is not None or run is None else run.hardware.precision


def _optimizer(run: RunSpec | None, given: str | Options | None) -> Options | None:
    if given is None:
        return None if run is None else run.optimizer
    if isinstance(given, str):
        options: Options = core.get("optimizer", given).Options(lr=1.0)
        return options
    return given


def _objective(run: RunSpec | None) -> Any:
    """The run's, or the one that a run has when it names none."""
    if run is not None:
        return run.objective.part(run.objective)
    part = core.get("objective", RunSpec.model_fields["objective"].default)
    return part(part.Options())
