"""The card: what a model is and what it costs, counted on the module that its spec builds.

    card(read("llama-3-8b"), batch=4, seq=2048).text()

Nothing is allocated for it, except a small model's weights, once, for its initial loss.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from registry import core
from registry.options import Options
from transformer_kit.cost import count, show
from transformer_kit.cost.count import Parameters
from transformer_kit.cost.quick import uncompiled
from transformer_kit.cost.tree import Node, tree
from transformer_kit.model.build import assemble, assemble_distinct, fill
from transformer_kit.model.model import Model, spec_of
from transformer_kit.spec.schema import ModelSpec, RunSpec, Spec

DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.bfloat16, torch.float16, torch.float64)}
SMALL = 64_000_000
"""Parameters of the largest model that is filled and run for its initial loss."""
SAMPLE = 512
"""Tokens that its loss is taken over."""


class Flops(NamedTuple):
    """Floating-point operations for each token of a sequence of the card's length."""

    forward_per_token: float
    train_per_token: float
    """Forward and backward."""


class Memory(NamedTuple):
    """Bytes of one training step on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Alive when the last norm's output reaches the head."""
    logits: int
    """What the peak adds to the activations: logits, loss and the first steps of their backward pass."""

    @property
    def total(self) -> int:
        """All of them; the peak when gradients outlive a backward pass, as in accumulation, and its bound else."""
        return sum(self)


class Decoding(NamedTuple):
    """Bytes of the decode state."""

    bytes_per_token: int
    """What the second token of one row adds."""
    length: int
    """Tokens of a row when it is full."""
    batch: int
    total: int
    """Bytes of `batch` rows of `length` tokens."""


class Loss(NamedTuple):
    """Cross-entropy in nats of fresh weights on random tokens."""

    initial: float | None
    uniform: float
    """ln V: the loss of a model that knows nothing, which fresh weights should be near."""
    skipped: str | None
    """Why there is no initial loss."""


@dataclass(frozen=True)
class Card:
    """What a model is and what it costs. Prints as plain text, shows as a table in a notebook."""

    batch: int
    seq: int
    dtype: str
    parameters: Parameters
    flops: Flops
    memory: Memory
    state: Decoding
    loss: Loss
    notes: tuple[str, ...]
    parts: tuple[Node, ...]

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
        """Everything, as mappings, lists and numbers that JSON can write."""
        sections = {name: getattr(self, name)._asdict() for name in ("parameters", "flops", "memory", "state", "loss")}
        sections["memory"]["total"] = self.memory.total
        return {
            "batch": self.batch,
            "seq": self.seq,
            "dtype": self.dtype,
            **sections,
            "notes": list(self.notes),
            "parts": [node.data() for node in self.parts],
        }

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def card(
    spec: Spec | ModelSpec,
    *,
    batch: int = 1,
    seq: int | None = None,
    dtype: str = "float32",
    optimizer: str | Options | None = None,
) -> Card:
    """Count what the model of `spec` costs with `batch` rows of `seq` tokens, all tensors in `dtype`.

    `seq` is the run's or the model's length when not given. `optimizer`, options or a name, is the run's when not
    given; without any, two values are assumed for each parameter. Raises SpecError for a spec that cannot be built,
    ValueError for sizes that it does not allow.
    """
    page = spec_of(spec)
    length = _length(page, batch, seq, dtype)
    with core.activate(frozenset(page.plugins)):
        chosen = _optimizer(page, optimizer)
        model, places = _assembled(page)
        model.to(DTYPES[dtype])
        try:
            with uncompiled():
                return _count(model, places, batch, length, dtype, chosen)
        except RuntimeError as error:
            if "overflow" not in str(error):
                raise
            raise ValueError(
                f"batch {batch} of {length} tokens needs tensors of more bytes than there are addresses; "
                f"choose a smaller batch or seq"
            ) from None


def _count(
    model: Model, places: count.Places | None, batch: int, length: int, dtype: str, optimizer: Options | None
) -> Card:
    stack = count.kinds(model, places)
    parameters = count.parameters(model, places)
    usage = count.usage(model, stack, batch, length)
    notes = _notes(model, optimizer, dtype)
    gradients = count.gradient_bytes(model, places)
    held = 2 * gradients if optimizer is None else count.optimizer_bytes(model, optimizer, places)
    weights = count.weight_bytes(model, places)
    memory = Memory(weights, gradients, held, usage.activations, usage.working)
    tokens = batch * length
    first, second = (count.state_bytes(model, 1, n, places) for n in (1, 2))
    return Card(
        batch=batch,
        seq=length,
        dtype=dtype,
        parameters=parameters,
        flops=Flops(_whole(usage.forward / tokens), _whole(usage.train / tokens)),
        memory=memory,
        state=Decoding(second - first, length, batch, count.state_bytes(model, batch, length, places)),
        loss=_loss(model, parameters.total, length),
        notes=tuple(notes),
        parts=tuple(tree(model, stack)),
    )


def _length(page: Spec, batch: int, seq: int | None, dtype: str) -> int:
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got '{dtype}'")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    limit = page.model.max_seq_len
    if seq is None:
        seq = page.train.seq_len if isinstance(page, RunSpec) else None
        seq = limit if seq is None else seq
    if not 1 <= seq <= limit:
        raise ValueError(f"seq must be from 1 to max_seq_len ({limit}), got {seq}")
    return seq


def _optimizer(page: Spec, given: str | Options | None) -> Options | None:
    if given is None:
        return page.optimizer if isinstance(page, RunSpec) else None
    if isinstance(given, str):
        options: Options = core.get("optimizer", given).Options(lr=1.0)
        return options
    return given


def _assembled(page: Spec) -> tuple[Model, count.Places | None]:
    """The model, equal layers once; but all of them where some are frozen, which is by name."""
    if not isinstance(page, RunSpec) or not page.train.freeze:
        return assemble_distinct(page)
    from transformer_kit.train.finetune import freeze

    model = assemble(page)
    freeze(model, page.train.freeze)
    return model, None


def _notes(model: Model, optimizer: Options | None, dtype: str) -> list[str]:
    notes = []
    if optimizer is None:
        notes.append("optimizer: two values assumed for each parameter, as Adam keeps")
    if dtype != "float32":
        notes.append(f"all in {dtype}; `kit train` keeps weights, gradients and optimizer state in float32")
    if model.spec.model.dropout:
        notes.append("activations: with dropout a CPU keeps all attention weights; a GPU's fused kernel keeps none")
    return notes


def _loss(model: Model, size: int, length: int) -> Loss:
    """Loss of a freshly filled copy on random tokens, when the model is small."""
    vocabulary = model.spec.model.vocab_size
    uniform = math.log(vocabulary)
    if size > SMALL:
        return Loss(None, uniform, f"the model has more than {SMALL:,} parameters")
    twin = assemble(model.spec)
    twin.to_empty(device="cpu")
    fill(twin, 0)
    row = min(length, SAMPLE)
    draw = torch.Generator().manual_seed(0)
    tokens, targets = torch.randint(vocabulary, (2, SAMPLE // row, row), generator=draw)
    with torch.no_grad():
        loss = twin.eval()(tokens, targets).loss
    return Loss(float(loss), uniform, None)


def _whole(value: float) -> float:
    return int(value) if value.is_integer() else value
