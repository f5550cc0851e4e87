"""What to count: a model on the meta device, and its run."""

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
"""Types of matrix products with float32 weights; `auto` is counted as float32."""
DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.bfloat16, torch.float16, torch.float64)}


class Memory(NamedTuple):
    """Bytes of one training step on one device."""

    weights: int
    gradients: int
    """Gradients alive during the optimizer's step."""
    optimizer: int
    activations: int
    """Alive when the last norm's output reaches the head; in mixed precision also the cast weights."""
    logits: int
    """What head and loss add to the activations: logits, and the first gradients."""
    peak: int
    """Peak of live bytes: less than the sum, since the backward pass frees activations while it adds gradients."""


@dataclass(frozen=True)
class Plan:
    """A model and its training settings. Made by `planned`."""

    page: Spec
    model: Model
    """On the meta device."""
    places: Places | None
    """For each of the model's layers, the indices that it stands for; None for the identity mapping."""
    dtype: str
    precision: str | None
    """One of PRECISIONS, the type of products in training with float32 weights; None when not given."""
    optimizer: Options | None
    """None to assume two values for each parameter."""
    activation_checkpointing: bool
    """Whether layers recompute their activations in the backward pass."""
    optimizer_in_backward: bool
    """Whether the optimizer steps in the backward pass and frees each gradient at once."""
    objective: Objective
    stack: list[Kind]

    def batch(self, given: int | None) -> int:
        """Sequences of a forward pass: `given`, else the run's, else 1. ValueError below 1."""
        if given is None:
            return self.page.train.batch_size if isinstance(self.page, RunSpec) else 1
        if given < 1:
            raise ValueError(f"batch must be at least 1, got {given}")
        return given

    def length(self, given: int | None) -> int:
        """Tokens of a sequence: `given`, else the run's, else max_seq_len. ValueError when out of range."""
        limit = self.page.model.max_seq_len
        if given is None:
            given = self.page.train.seq_len if isinstance(self.page, RunSpec) else None
            given = limit if given is None else given
        if not 1 <= given <= limit:
            raise ValueError(f"seq must be from 1 to max_seq_len ({limit}), got {given}")
        return given

    def timeline(self, batch: int, seq: int) -> Timeline:
        """A forward and backward pass of `batch` sequences of `seq` tokens. ValueError when tensors are too large."""
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
                f"batch {batch} of {seq} tokens needs tensors larger than the address space; "
                f"choose a smaller batch or seq"
            ) from None

    def memory(self, timeline: Timeline) -> Memory:
        """Bytes of a training step whose passes follow `timeline`."""
        weights = count.weight_bytes(self.model, self.places)
        gradients = self._gradient_bytes()
        optimizer = self.optimizer_bytes()
        passes = timeline.whole().peak
        # With accumulation, gradients outlive a pass. Without it, all gradients exist when the optimizer steps.
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
        """Bytes of the optimizer state."""
        if self.optimizer is None:
            return 2 * count.gradient_bytes(self.model, self.places)
        return count.optimizer_bytes(self.model, self.optimizer, self.places)

    def _gradient_bytes(self) -> int:
        """Bytes of the gradients alive during the optimizer's step: the largest one alone, or all."""
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
    """The plan of `page`, with its plugins registered inside the context. None takes the run's value."""
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
    learning = torch.inference_mode(False), torch.enable_grad()  # the run's precision is counted for every purpose
    with core.activate(frozenset(page.plugins)), uncompiled(), learning[0], learning[1]:
        chosen, products = _optimizer(run, optimizer), _precision(run, dtype, precision)
        objective = _objective(run)
        model, places = _assembled(page)
        checkpoint = partial(transform.activation_checkpointing, inside=torch_functions) if checkpointing else None
        model = transformed(model.to(DTYPES[dtype]), activation_checkpointing=checkpoint)
        stack = count.kinds(model, places)
        yield Plan(page, model, places, dtype, products, chosen, checkpointing, in_backward, objective, stack)


def mixed(precision: str | None) -> torch.dtype | None:
    """Type of matrix products where it differs from the weights' type; else None."""
    return None if precision is None else PRECISIONS[precision]


def _assembled(page: Spec) -> tuple[Model, Places | None]:
    """The model, with equal layers held once unless some are frozen, since freezing goes by name."""
    if not isinstance(page, RunSpec):
        return assemble_distinct(page)
    if not page.train.freeze:
        return assemble_distinct(page, page.hardware.kernel)
    return freeze(assemble(page, page.hardware.kernel), page.train.freeze), None


def _precision(run: RunSpec | None, dtype: str, given: str | None) -> str | None:
    """Precision of products: `given`, else the run's, which may be `auto`; None when neither is given."""
    if given is not None and given not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got '{given}'")
    if dtype != "float32":
        if given is not None:
            raise ValueError(
                f"precision {given} requires weights in float32, not {dtype}; leave out precision or dtype"
            )
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
    """The run's optimizer, or the default one of a run."""
    if run is not None:
        return run.objective.part(run.objective)
    part = core.get("objective", RunSpec.model_fields["objective"].default)
    return part(part.Options())
