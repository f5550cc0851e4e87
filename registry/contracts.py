"""What a part of each family promises. One base class per family; a part derives from one of them, and no other.

Those of a model stand here, those of a run in `run_contracts`; all are imported from here.

Letters of shapes, the same in every file: B batch, T query tokens, S key tokens, D d_model, H heads, G kv heads,
K head_dim, F d_ff, V vocab.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Generator, Tensor, nn

from registry import core
from registry import options as _options
from registry.context import Context, Mask
from registry.part import ModelPart, Part, Site
from registry.run_contracts import Dataset, Objective, Optimizer, Sampler, Schedule, Spans, Tokenizer, Tracker
from registry.slots import (
    ActivationSlot,
    BlockSlot,
    DatasetSlot,
    EmbeddingSlot,
    FFNSlot,
    HeadSlot,
    InitSlot,
    KernelSlot,
    MixerSlot,
    NormSlot,
    ObjectiveSlot,
    OptimizerSlot,
    PositionSlot,
    RouterSlot,
    SamplerSlot,
    ScalingSlot,
    ScheduleSlot,
    TokenizerSlot,
    TrackerSlot,
)
from registry.state import Capacity, LayerState
from registry.weight import Role, Weight

__all__ = [
    "FFN", "Activation", "ActivationSlot", "Block", "BlockSlot", "Dataset", "DatasetSlot", "Embedding",
    "EmbeddingSlot", "FFNSlot", "Head", "HeadSlot", "Init", "InitSlot", "Kernel", "KernelSlot", "Mixer",
    "MixerSlot", "ModelPart", "Norm", "NormSlot", "Objective", "ObjectiveSlot", "Optimizer", "OptimizerSlot",
    "Part", "Position", "PositionSlot", "Role", "Router", "RouterSlot", "Sampler", "SamplerSlot", "Scaling",
    "ScalingSlot", "Schedule", "ScheduleSlot", "Site", "Spans", "Tokenizer", "TokenizerSlot", "Tracker", "TrackerSlot",
    "Weight",
]  # fmt: skip


class Activation(ModelPart):
    """x (..., F) -> (..., F), element by element."""

    family = "activation"

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Norm(ModelPart):
    """x (..., D) -> (..., D): rescales the last dimension, of width `site.d_model`."""

    family = "norm"

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Position(ModelPart):
    """Tells tokens where they stand, at one of three places, named by `acts`; the other two do nothing."""

    family = "position"
    acts: ClassVar[str] = "nowhere"
    """`embedding` (added to it), `rotation` (of queries and keys), `bias` (on scores) or `nowhere`."""
    shift_invariant: ClassVar[bool] = True
    """Logits do not change when all positions grow by the same amount."""
    settled: bool = True
    """What it does to a token does not depend on how many follow in its text. Where it does, a text that is read in
    pieces must not outgrow what its first tokens were read for: `rotate` raises `TextGrew`."""
    score_scale: float = 1.0
    """Factor of the score scale in a mixer that rotates only a part of each head (YaRN in MLA)."""

    def embed(self, x: Tensor, context: Context) -> Tensor:
        """x (B, T, D) with positions added."""
        return x

    def rotate(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """q (B, H, T, K) and k (B, G, T, K), turned by position."""
        return q, k

    def bias(self, mask: Mask) -> Tensor | None:
        """What is added to the scores: (H, T, S), or (B, H, T, S) where it depends on segments; None for nothing."""
        return None


class Scaling(Part):
    """Stretches rotary positions to longer contexts than a model was first trained on."""

    family = "scaling"
    settled: bool = True
    """See `Position.settled`."""
    score_scale: float = 1.0
    """See `Position.score_scale`."""

    def __init__(self, options: Any, site: Site) -> None:
        self.options = options
        self.site = site

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float | Tensor]:
        """From `base` (R/2,), theta^(-2i/R) for each pair, those to turn by, and a factor for cos and sin.

        `length` (..., 1) is the number of tokens of the text; where it matters, frequencies are (..., R/2) and a factor
        that is a tensor (..., 1), and the scaling says that it is not `settled`.
        """
        raise NotImplementedError


class Kernel(ModelPart):
    """Computes attention. A matter of the run, not of the architecture: every kernel equals `eager`.

    q (B, H, T, K), k and v (B, G, S, K) with H a multiple of G; bias (H, T, S) or (B, H, T, S); sinks (H,): the logit
    of a key that takes weight and gives nothing. Returns (B, H, T, width of v).
    """

    family = "kernel"

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask,
        *,
        scale: float,
        softcap: float | None,
        bias: Tensor | None,
        sinks: Tensor | None,
        dropout: float,
    ) -> Tensor:
        raise NotImplementedError


class Mixer(ModelPart):
    """Mixes tokens: x (B, T, D) -> (B, T, D). The same forward trains, prefills in chunks and decodes."""

    family = "mixer"
    accepts: ClassVar[frozenset[str]] = frozenset()
    """Places where a position scheme may act in this mixer: `rotation`, `bias`. None, unless it says so."""

    def __init__(self, options: Any, site: Site) -> None:
        super().__init__(options, site)
        self._check_position(site)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        """`state` is what `self.state` made, and remembers the tokens before these; None where there are none."""
        raise NotImplementedError

    def state(self, capacity: Capacity) -> LayerState | None:
        """Allocate an empty decode state; None to remember nothing."""
        raise NotImplementedError

    def position_at(self, site: Site) -> Position:
        """The scheme of this layer where it acts inside mixers, or one that does nothing where it acts elsewhere.

        Raises ValueError when the scheme acts where this mixer lets none act.
        """
        self._check_position(site)
        return site.build(None, Position)

    def _check_position(self, site: Site) -> None:
        """Raise ValueError when the layer's scheme acts where this mixer lets none act: it would be ignored."""
        chosen = site.defaults.get("position")  # a mixer that stands alone has none
        if chosen is None or chosen.part.acts == "nowhere" or chosen.part.acts in self.accepts:
            return
        name, acts = chosen.part.name, chosen.part.acts
        if acts == "embedding":
            raise ValueError(f"position '{name}' acts on the embedding, not in mixers; set it in `model.position`")
        able = [n for n in core.names("mixer") if _accepts(n, acts)]
        who = f"choose a mixer that accepts it ({', '.join(able)})" if able else "no mixer accepts it"
        raise ValueError(
            f"position '{name}' acts on the {acts}, which mixer '{self.name}' does not use; "
            f"{who}, or `position: none` in this block"
        )


def _accepts(mixer: str, place: str) -> bool:
    try:
        return place in core.get("mixer", mixer).accepts
    except core.RegistryError:  # another part's fault, which is not what this message is about
        return False


class FFN(ModelPart):
    """Transforms each token by itself: x (B, T, D) -> (B, T, D)."""

    family = "ffn"

    def forward(self, x: Tensor, context: Context) -> Tensor:
        raise NotImplementedError


class Router(ModelPart):
    """Chooses experts: x (N, D) -> weights and indices (N, top_k) of the chosen among E = `site.n_experts`."""

    family = "router"
    top_k: int
    """Experts per token."""

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Block(ModelPart):
    """One layer: a mixer, an ffn, norms and residual paths. x (B, T, D) -> (B, T, D)."""

    family = "block"

    class Options(_options.Options):
        """What every block chooses."""

        mixer: MixerSlot
        """What mixes tokens."""
        ffn: FFNSlot
        """What transforms each token."""
        norm: NormSlot | None = None
        """The norm of this block; the model's when not given."""
        position: PositionSlot | None = None
        """The position scheme inside this block's mixer; the model's when not given."""
        residual_scale: _options.Positive = 1.0
        """Multiplies what each branch adds to the residual stream."""

    mixer: Mixer

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, Any]:
        """The norm and the position scheme of this block; norms of its branches are the block's own unless given."""
        norm = site.chosen(options.norm, Norm)
        norms = [name for name, field in type(options).model_fields.items() if _options.slot_family(field) == "norm"]
        return {
            **{name: norm if getattr(options, name) is None else getattr(options, name) for name in norms},
            "position": site.chosen(options.position, Position),
        }

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        raise NotImplementedError

    def state(self, capacity: Capacity) -> LayerState | None:
        """Allocate the decode state of this layer: its mixer's."""
        return self.mixer.state(capacity)


class Embedding(ModelPart):
    """Token ids (B, T) -> vectors (B, T, D). `weight` (V, its own width) is what a tied head reads."""

    family = "embedding"
    weight: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError


class Head(ModelPart):
    """Last activations x (B, T, D) -> logits (B, T, V); `table` (V, its width) is the embedding's weight."""

    family = "head"
    out: nn.Linear | None
    """The projection to logits; None where it is the table."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        raise NotImplementedError


class Init(Part, ABC):
    """Draws the first weights of linear and embedding layers. Their names, roles and layers tell them apart."""

    family = "init"

    def __init__(self, options: Any, site: Site) -> None:
        self.options = options
        self.site = site

    @abstractmethod
    def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
        """Fill `weight`, (out, in) or a table (rows, width), in place, drawing from `generator` alone."""

    def fill_bias(self, bias: Tensor, where: Weight, generator: Generator) -> None:
        """Fill the bias (out,) of a linear layer in the same way; with zeros unless overridden."""
        nn.init.zeros_(bias)
