"""The spec as frozen, validated objects.

`ModelSpec` is the architecture, `Spec` a spec with a model, `RunSpec` a spec that also says how to train it.
Python users write the same objects, or the same mappings: `Spec.of({...})`.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from registry import core
from registry.contracts import (
    BlockSlot,
    DatasetSlot,
    EmbeddingSlot,
    HeadSlot,
    InitSlot,
    KernelSlot,
    NormSlot,
    ObjectiveSlot,
    OptimizerSlot,
    PositionSlot,
    SamplerSlot,
    ScheduleSlot,
    TokenizerSlot,
    TrackerSlot,
)
from registry.options import AsTuple, Count, Group, Natural, NonNegative, Options, Positive, Rate, Width, named, plain
from transformer_kit.spec.check import from_mapping
from transformer_kit.spec.layers import MAX_LAYERS, expand, fold


class Layers(Group):
    """The stack: every layer's block, in order. YAML writes it as `count`, `block`, `kinds`, `pattern`, `at`."""

    blocks: Annotated[tuple[BlockSlot, ...], AsTuple, MinLen(1), MaxLen(MAX_LAYERS)]
    """One block for each layer."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return expand(value)


class ModelSpec(Group):
    """An architecture."""

    vocab_size: Annotated[int, Ge(1), Le(16_777_216)]
    """Number of token ids."""
    d_model: Width
    """Width of the residual stream."""
    max_seq_len: Count
    """Longest sequence, in tokens."""
    dropout: Rate = 0.0
    """Dropout of embeddings, attention weights and residual branches, in training."""
    embedding: EmbeddingSlot = named("token")
    """Token ids to vectors."""
    position: PositionSlot = named("none")
    """Positional encoding; blocks may choose their own."""
    norm: NormSlot = named("layer_norm")
    """The norm of the blocks and after the last layer."""
    layers: Layers
    """The stack."""
    final_norm: NormSlot | None = None
    """The norm after the last layer; `norm` when not given."""
    head: HeadSlot = named("lm")
    """Final activations to logits."""
    init: InitSlot = named("normal")
    """Weight initialization."""


class Spec(Group):
    """A spec that describes a model."""

    kit: Literal[1] = 1
    """Version of the spec language."""
    plugins: Annotated[tuple[str, ...], AsTuple] = ()
    """Installed plugins whose parts this spec may name."""
    model: ModelSpec
    """The architecture."""

    _source: Any = PrivateAttr(default=None)

    @model_validator(mode="wrap")
    @classmethod
    def _with_plugins(cls, value: Any, handler: Any) -> Any:
        listed = value.get("plugins", ()) if isinstance(value, dict) else ()
        names = listed if isinstance(listed, (list, tuple)) else ()
        with core.activate(frozenset(n for n in names if isinstance(n, str))):
            return handler(value)

    @classmethod
    def of(cls, value: dict[str, Any]) -> Self:
        """The spec that a mapping describes, as YAML would. Raises `SpecError` with all faults."""
        return from_mapping(value, cls)

    def __eq__(self, other: object) -> bool:
        """Equal when their canonical forms are, wherever each was written."""
        if not isinstance(other, Spec) or type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in type(self).model_fields)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about valid but unusual values, such as options lost with a replaced part."""
        return () if self._source is None else tuple(self._source.notes)

    def resolved(self) -> dict[str, Any]:
        """The canonical form: every choice written out, the layers folded. Reads back as an equal spec."""
        page = plain(self)
        page["model"]["layers"] = fold(page["model"]["layers"]["blocks"])
        return page

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical form; equal for specs that mean the same."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()


class Train(Group):
    """Steps, batch size and other settings of training."""

    steps: Count
    """Optimizer steps of the whole run."""
    batch_size: Count = 8
    """Sequences in one forward pass."""
    gradient_accumulation: Count = 1
    """Forward passes in one step."""
    seq_len: Count | None = None
    """Tokens of a sequence; the model's max_seq_len when not given."""
    max_grad_norm: Positive | None = 1.0
    """Norm to which a larger gradient is clipped; null does not clip."""
    seed: Natural = 0
    """Seed of weights, data order and dropout."""
    validation: Rate = 0.05
    """Fraction of the corpus held out for validation."""
    document_mask: bool = False
    """Whether attention stays within a document where a sequence holds several (intra-document masking)."""
    add_special_tokens: bool = True
    """Whether each document gets what the tokenizer puts before and after a text, such as a BOS."""
    split_special_tokens: bool = False
    """Whether special tokens that the corpus spells out, such as `<|endoftext|>`, stay text."""
    freeze: Annotated[tuple[str, ...], AsTuple] = ()
    """Patterns (`layers.0.*`) of parameter names that do not learn."""


class Evaluate(Group):
    """When the loss on the validation share is measured."""

    every: Count = 250
    """Steps between evaluations."""
    batches: Count = 16
    """Batches of an evaluation; at most one pass over the validation share, which holds every target once."""


class Checkpoint(Group):
    """When the run is saved so that it can go on."""

    every: Count | None = None
    """Steps between checkpoints; a tenth of the run's, at most 500, when not given. The last step is saved always."""
    keep: Count = 2
    """Number of checkpoints to keep."""


class Sample(Group):
    """When the model shows what it can write."""

    every: Count = 500
    """Steps between samples."""
    prompt: str = "\n"
    """The prompt."""
    max_new_tokens: Count = 128
    """Number of tokens to generate, at most."""
    samplers: Annotated[tuple[SamplerSlot, ...], AsTuple] = Field(
        default=({"type": "temperature", "value": 0.8},), validate_default=True
    )
    """Samplers of the next token."""


class Hardware(Group):
    """Device, precision and memory."""

    device: str = "auto"
    """`auto`, or a torch device such as `cpu` or `cuda:0`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 where the hardware multiplies it fast, else float32."""
    kernel: KernelSlot = named("sdpa")
    """Implementation of attention; the result is the same."""
    compile: bool = False
    """Whether torch.compile builds each layer; equal layers are built once."""
    activation_checkpointing: bool = False
    """Whether layers recompute their activations in the backward pass instead of keeping them: less memory."""
    optimizer_in_backward: bool = False
    """Whether the optimizer steps in the backward pass, which drops each gradient: less memory. No clipping."""
    peak_tflops: NonNegative | None = None
    """Peak TFLOP/s for MFU; measured at the start when not given."""


class RunSpec(Spec):
    """A spec that describes a model and how it learns."""

    tokenizer: TokenizerSlot = named("bytes")
    """Text to token ids."""
    data: DatasetSlot = named("python_stdlib")
    """The corpus."""
    objective: ObjectiveSlot = named("causal_lm")
    """The training loss."""
    optimizer: OptimizerSlot
    """The optimizer."""
    schedule: ScheduleSlot = named("constant")
    """The learning-rate schedule."""
    trackers: Annotated[tuple[TrackerSlot, ...], AsTuple] = Field(default=("jsonl",), validate_default=True)
    """Loggers of metrics; `jsonl` is always one of them."""
    train: Train
    """Steps, batch size and other settings of training."""
    evaluate: Evaluate = Evaluate()
    """Validation."""
    checkpoint: Checkpoint = Checkpoint()
    """Checkpoints."""
    sample: Sample | None = None
    """Samples of generated text during training; none when not given."""
    hardware: Hardware = Hardware()
    """Device, precision and memory."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""
        return self.checkpoint.every or min(500, -(-self.train.steps // 10))

    @field_validator("hardware")
    @classmethod
    def _no_later_step(cls, hardware: Hardware, info: ValidationInfo) -> Hardware:
        train = info.data.get("train")
        if not hardware.optimizer_in_backward or train is None:
            return hardware
        if train.max_grad_norm is not None or train.gradient_accumulation > 1:
            raise ValueError(
                "optimizer_in_backward keeps no gradients, so they can be neither clipped nor accumulated; "
                "choose train.max_grad_norm: null and train.gradient_accumulation: 1, "
                f"got {train.max_grad_norm} and {train.gradient_accumulation}"
            )
        return hardware

    @field_validator("trackers")
    @classmethod
    def _each_once(cls, trackers: tuple[Options, ...]) -> tuple[Options, ...]:
        names = [options.part.name for options in trackers]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"'{twice}' is listed twice, and would write everything twice; list it once")
        return trackers
