"""The cost report: the parts of a model and what it costs, counted on the module that its spec builds.

    card(read("llama-3-8b"), batch=4, seq=2048).text()

Counting allocates nothing. Only the initial loss needs weights, and only a small model computes it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from registry.options import Options
from transformer_kit.cost import count, show
from transformer_kit.cost.figures import Decoding, Figures, Flops, Loss
from transformer_kit.cost.plan import Plan, mixed, planned
from transformer_kit.cost.signal import signal as measured
from transformer_kit.cost.tree import tree
from transformer_kit.model.build import build
from transformer_kit.model.model import Model
from transformer_kit.spec.read import page_of
from transformer_kit.spec.schema import ModelSpec, Spec

SMALL = 64_000_000
"""Parameters of the largest model whose initial loss is computed."""
SAMPLE = 512
"""Number of tokens in the initial loss."""


class Card(Figures):
    """The cost report of a model. Prints as plain text, shows as a table in a notebook."""

    def text(self) -> str:
        """Plain, aligned text."""
        return show.text(self)

    def html(self) -> str:
        """Tables for a notebook."""
        return show.html(self)

    def rich(self) -> Any:
        """A renderable for a `rich` console."""
        return show.rich(self)

    def data(self) -> dict[str, Any]:
        """The report as mappings, lists and numbers that JSON can write."""
        sections = {name: getattr(self, name)._asdict() for name in ("parameters", "flops", "memory", "state", "loss")}
        if self.purpose == "decode":
            sections["memory"] = show.decoding(self)
            del sections["flops"]["train_per_token"]
        return {
            "purpose": self.purpose,
            "batch": self.batch,
            "seq": self.seq,
            "dtype": self.dtype,
            "precision": self.precision,
            **sections,
            "notes": list(self.notes),
            "parts": [node.data() for node in self.parts],
            **({} if self.signal is None else {"signal": self.signal.data()}),
        }

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def card(
    spec: str | Path | Mapping[str, Any] | Spec | ModelSpec,
    *,
    batch: int | None = None,
    seq: int | None = None,
    dtype: str = "float32",
    optimizer: str | Options | None = None,
    activation_checkpointing: bool | None = None,
    optimizer_in_backward: bool | None = None,
    precision: str | None = None,
    signal: bool = False,
    purpose: str = "train",
) -> Card:
    """Count the cost of the model of `spec` with `batch` sequences of `seq` tokens, all tensors in `dtype`.

    `precision` bfloat16 counts matrix products in bfloat16 and weights in `dtype`, as `kit train` may run them.
    `signal` also measures activations and gradients at initialization.

    Arguments that are None come from the run. Without a run, `batch` is 1 and `seq` the longest possible. The optimizer
    then keeps two values for each parameter, activations are not checkpointed, products are in float32, and the
    optimizer steps after the backward pass. With `purpose` "decode" the report covers decoding alone, else also
    training. Raises SpecError for a spec that cannot be built, ValueError for sizes that it does not allow.
    """
    ways: dict[str, Any] = {
        "activation_checkpointing": activation_checkpointing,
        "optimizer_in_backward": optimizer_in_backward,
        "precision": precision,
    }
    with planned(page_of(spec), dtype=dtype, optimizer=optimizer, **ways) as plan:
        found = _count(plan, plan.batch(batch), plan.length(seq), purpose)
        return replace(found, signal=measured(plan.model.spec, found.seq)) if signal else found


def _count(plan: Plan, batch: int, length: int, purpose: str) -> Card:
    model = plan.model
    parameters = count.parameters(model, plan.places)
    timeline = plan.timeline(batch, length)
    tokens = batch * length
    return Card(
        batch=batch,
        seq=length,
        dtype=plan.dtype,
        precision=plan.dtype if mixed(plan.precision) is None else str(plan.precision),
        parameters=parameters,
        flops=Flops(_whole(timeline.forward_flops / tokens), _whole(timeline.whole().flops / tokens)),
        memory=plan.memory(timeline),
        state=Decoding(
            count.state_bytes_per_token(model, plan.places),
            length,
            batch,
            count.state_bytes(model, batch, length, plan.places),
        ),
        loss=_loss(model, parameters.total, length),
        notes=tuple(_notes(plan) if purpose == "train" else ()),
        parts=tuple(tree(model, plan.stack)),
        purpose=purpose,
    )


def _notes(plan: Plan) -> list[str]:
    notes = []
    if plan.optimizer is None:
        notes.append("optimizer: two values assumed for each parameter, as Adam keeps")
    if plan.dtype != "float32":
        notes.append(f"all in {plan.dtype}; `kit train` keeps weights, gradients and optimizer state in float32")
    if plan.precision == "auto":
        notes.append("precision auto is counted as float32; choose bfloat16 for hardware that supports it")
    if plan.model.spec.model.dropout:
        notes.append("activations: with dropout a CPU keeps all attention weights; a GPU's fused kernel keeps none")
    if plan.activation_checkpointing:
        notes.append("activation checkpointing: layers recompute their activations, and training FLOPs include that")
    if plan.optimizer_in_backward:
        notes.append("optimizer in backward: one gradient is in memory at a time")
    return notes


def _loss(model: Model, size: int, length: int) -> Loss:
    """Loss of a freshly initialized copy on random tokens, when the model is small."""
    vocabulary = model.spec.model.vocab_size
    uniform = math.log(vocabulary)
    if size > SMALL:
        return Loss(None, uniform, f"the model has more than {SMALL:,} parameters")
    twin = build(model.spec)
    row = min(length, SAMPLE)
    draw = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(vocabulary, (2, SAMPLE // row, row), generator=draw)
    with torch.no_grad():
        loss = twin.eval()(tokens, targets).loss
    return Loss(float(loss), uniform, None)


def _whole(value: float) -> float:
    return int(value) if value.is_integer() else value
