"""What a part of each family promises. One base class per family; a part derives from one of them, and no other.

Letters of shapes, the same in every file: B batch, T query tokens, S key tokens, D d_model, H heads, G kv heads,
K head_dim, F d_ff, V vocab.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from registry import core
from registry import options as _options
from registry.context import Context, Mask
from registry.options import Slot

P = TypeVar("P", bound="Part")

PositionSlot = Annotated[_options.Options, Slot("position")]
ActivationSlot = Annotated[_options.Options, Slot("activation")]
NormSlot = Annotated[_options.Options, Slot("norm")]
MixerSlot = Annotated[_options.Options, Slot("mixer")]
FFNSlot = Annotated[_options.Options, Slot("ffn")]
BlockSlot = Annotated[_options.Options, Slot("block")]
EmbeddingSlot = Annotated[_options.Options, Slot("embedding")]
ScalingSlot = Annotated[_options.Options, Slot("scaling")]
RouterSlot = Annotated[_options.Options, Slot("router")]
HeadSlot = Annotated[_options.Options, Slot("head")]
InitSlot = Annotated[_options.Options, Slot("init")]
KernelSlot = Annotated[_options.Options, Slot("kernel")]
TokenizerSlot = Annotated[_options.Options, Slot("tokenizer")]
DatasetSlot = Annotated[_options.Options, Slot("dataset")]
ObjectiveSlot = Annotated[_options.Options, Slot("objective")]
OptimizerSlot = Annotated[_options.Options, Slot("optimizer")]
ScheduleSlot = Annotated[_options.Options, Slot("schedule")]
SamplerSlot = Annotated[_options.Options, Slot("sampler")]
TrackerSlot = Annotated[_options.Options, Slot("tracker")]


class Part:
    """What the catalogue holds: a class with `Options`, known in YAML by the name of its file."""

    family: ClassVar[str]
    name: ClassVar[str] = ""
    """The registered name; set by `register`."""

    class Options(_options.Options):
        """No options."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "Options" not in cls.__dict__:
            names = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Options"}  # for pickle
            # Without fields there are no docstrings, and looking for them takes longer than importing the part.
            config = {"use_attribute_docstrings": False}
            own: Any = type(
                "Options", (cls.Options,), {**names, "__doc__": cls.Options.__doc__, "model_config": config}
            )
            own.model_config["use_attribute_docstrings"] = True  # for the classes derived from it
            setattr(cls, "Options", own)  # noqa: B010 - a type checker takes a nested class for final
        cls.Options.part = cls


@dataclass(frozen=True)
class Site:
    """Where a part of a model stands: the sizes around it, the model's defaults, and the builder of its children.

    A part raises ValueError from `__init__` when its options cannot work here; the builder adds where.
    """

    d_model: int
    """Width of the features that come in (inside a mixer, of one head: head_dim)."""
    vocab_size: int = 0
    max_seq_len: int = 0
    n_layers: int = 1
    at: Callable[[], int] = int  # what `layer` asks; the builder listens, to know whether a part depends on it
    n_heads: int | None = None
    """Number of query heads, inside a mixer."""
    n_experts: int | None = None
    """Number of experts, inside a mixture."""
    table: int | None = None
    """Width of the embedding's rows, which a tied head reads; known where the head stands."""
    dropout: float = 0.0
    """The model's dropout rate."""
    make: Callable[[_options.Options, "Site"], Any] | None = None
    """Builds a child; constructs it directly when not given."""
    defaults: dict[str, _options.Options] = field(default_factory=dict)
    """The model's own part of a family, used where a slot is left open."""

    @property
    def layer(self) -> int:
        """Index of this layer, from 0."""
        return self.at()

    def build(self, options: _options.Options | None, kind: type[P]) -> P:
        """The part that `options` describe, or the model's own of that family when None, standing here."""
        chosen = self.chosen(options, kind)
        part: P = chosen.part(chosen, self) if self.make is None else self.make(chosen, self)
        return part

    def chosen(self, options: _options.Options | None, kind: type[P]) -> _options.Options:
        """`options`, or those of the model's own part of that family when None."""
        return self.defaults[kind.family] if options is None else options

    def using(self, options: _options.Options | None, kind: type[P]) -> "Site":
        """This site with another default for a family; the same one when None."""
        return self if options is None else replace(self, defaults={**self.defaults, kind.family: options})

    def inside(self, *, d_model: int, n_heads: int | None = None) -> "Site":
        """The site of a child that sees other features than its parent: of one head, or of the inner width."""
        return replace(self, d_model=d_model, n_heads=n_heads)

    def among(self, n_experts: int) -> "Site":
        """The site of a child that deals with so many experts."""
        return replace(self, n_experts=n_experts)


class ModelPart(Part, nn.Module):
    """A part of a model: a module made from its options and its site."""

    residual: ClassVar[tuple[str, ...]] = ()
    """Names of the projections that write into the residual stream; initialisers may scale them by depth."""
    together: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Names of linear layers that `forward` gives one and the same tensor: generation multiplies them at once."""
    one_graph: ClassVar[bool] = True
    """torch.compile traces it without a break. False where what to compute is known only once tokens are."""
    does_nothing: bool = False
    """It gives back what it is given, and has no parameters: a card leaves it out."""

    def __init__(self, options: Any, site: Site) -> None:
        nn.Module.__init__(self)

    def idle(self) -> int:
        """How many parameters of this module one token leaves unvisited, such as those of experts not chosen."""
        return 0

    def reset_parameters(self) -> None:
        """Fill the parameters that this module itself owns. Linear and embedding children belong to the init part."""

    def after_step(self) -> dict[str, Tensor]:
        """After an optimizer step: move what no gradient moves; scalars for the metrics, which nothing waits for."""
        return {}


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
    """What it does to a token does not depend on how many follow, so that reading in pieces is reading at once."""
    gain: float = 1.0
    """What a mixer that turns a part of each head alone multiplies the scale of its scores by."""

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
    gain: float = 1.0
    """See `Position.gain`."""

    def __init__(self, options: Any, site: Site) -> None:
        self.options = options
        self.site = site

    def frequencies(self, base: Tensor, theta: float, length: int) -> tuple[Tensor, float]:
        """From `base`, theta^(-2i/R) for each of R/2 pairs, those to turn by, and a factor for cos and sin.

        `length` is the number of tokens so far, in this row.
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
    """Places where a position scheme may act in this mixer: `rotation`, `bias`."""

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        raise NotImplementedError

    def state(self, batch: int, capacity: int, like: Tensor) -> Any:
        """Empty decode state for `batch` rows of up to `capacity` tokens, with `like`'s dtype and device."""
        raise NotImplementedError

    def position_at(self, site: Site) -> Position:
        """The scheme of this layer where it acts inside mixers, or one that does nothing where it acts elsewhere.

        Raises ValueError when the scheme acts where this mixer lets none act.
        """
        chosen = site.chosen(None, Position)
        acts = chosen.part.acts
        if acts == "nowhere" or acts in self.accepts:
            return site.build(None, Position)
        able = [n for n in core.names("mixer") if _accepts(n, acts)]
        who = f"mixers that take it: {', '.join(able)}" if able else "choose it as the model's `position`"
        raise ValueError(f"position '{chosen.part.name}' acts on the {acts}, not in mixer '{self.name}'; {who}")


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
    """Chooses experts: x (N, D) -> weights (N, k) and indices (N, k) of the chosen among E = `site.n_experts`."""

    family = "router"
    k: int
    """Experts that see a token."""

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

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        raise NotImplementedError

    def state(self, batch: int, capacity: int, like: Tensor) -> Any:
        """Empty decode state of this layer: its mixer's."""
        return self.mixer.state(batch, capacity, like)


class Embedding(ModelPart):
    """Token ids (B, T) -> vectors (B, T, D). `weight` (V, its own width) is what a tied head reads."""

    family = "embedding"
    weight: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError


class Head(ModelPart):
    """Last activations x (B, T, D) -> logits (B, T, V); `table` (V, its width) is the embedding's weight."""

    family = "head"

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        raise NotImplementedError

    def project(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + b: the widest product of a model, by itself so that generation may lay out its weights anew."""
        return nn.functional.linear(x, weight, bias)


class Init(Part, ABC):
    """Draws the first weights of linear and embedding layers."""

    family = "init"

    def __init__(self, options: Any, site: Site) -> None:
        self.options = options
        self.site = site

    @abstractmethod
    def fill(self, weight: Tensor, *, residual: bool, generator: Any) -> None:
        """Fill `weight` (out, in) in place; `residual` when it writes into the residual stream."""


class Tokenizer(Part, ABC):
    """Text <-> token ids. Saved as a Hugging Face `tokenizer.json`, whatever it is made of."""

    family = "tokenizer"
    vocab_size: int
    end_of_text: int | None
    """Id that ends a document; None when there is none."""
    needs_training: bool = False
    """True as long as `train` has something to learn and was not called."""

    def __init__(self, options: Any, base: Path = Path()) -> None:
        """`base` is the folder that relative paths start from."""
        self.options = options
        self.base = base

    @abstractmethod
    def train(self, texts: Iterator[str]) -> None:
        """Learn from a corpus what is to be learnt; ready at once when there is nothing."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of `text`. Special tokens spelt out in the text stay text. ValueError for lone surrogates."""

    def encode_batch(self, texts: list[str]) -> list[NDArray[Any]]:
        """Ids of each text as an array of unsigned integers: `encode` for a corpus, overridden where that is faster."""
        return [np.asarray(self.encode(text), dtype=np.uint32) for text in texts]

    @abstractmethod
    def decode(self, tokens: list[int]) -> str:
        """Text of `tokens`; bytes that are not UTF-8 become U+FFFD, special and unknown ids have no text."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into `folder`."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides what `encode` returns; keys the token cache."""


class Dataset(Part, ABC):
    """A corpus: a source of documents. What turns them into batches is the engine's, the same for all."""

    family = "dataset"

    def __init__(self, options: Any, base: Path) -> None:
        """`base` is the folder that relative paths start from."""
        self.options = options
        self.base = base

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Every document, one at a time, in an order that does not change. ValueError names a bad file and line."""

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The documents as (text, whether the document ends here): overridden where one may not fit into memory."""
        return ((document, True) for document in self.documents())

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the content, cheap to compute (paths, sizes and times will do); keys the token cache."""


class Objective(Part, ABC):
    """What training minimises."""

    family = "objective"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def loss(self, model: Any, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum of the losses over the valid targets in `tokens` (B, T+1), and how many there are."""


class Optimizer(Part, ABC):
    """Makes a torch optimizer."""

    family = "optimizer"

    class Options(_options.Options):
        """What every optimizer chooses."""

        lr: _options.Positive
        """Peak learning rate; the schedule scales it."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def make(self, model: nn.Module) -> TorchOptimizer:
        """A torch optimizer over the model's parameters that require a gradient."""


class Schedule(Part, ABC):
    """Scales the learning rate over the run."""

    family = "schedule"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def scale(self, step: int, steps: int) -> float:
        """Factor in [0, 1] for `step` (from 0) of a run of `steps`."""


class Sampler(Part, ABC):
    """Turns logits into other logits, or chooses. Samplers compose: each narrows what the one before left."""

    family = "sampler"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def apply(self, logits: Tensor) -> Tensor:
        """logits (B, V) -> logits (B, V), with -inf where a token may not be chosen."""


class Tracker(Part, ABC):
    """Writes down what a run measures."""

    family = "tracker"

    def __init__(self, options: Any, folder: Path) -> None:
        self.options = options
        self.folder = folder

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None:
        """Record `values` of `step`."""

    def rewind(self, step: int) -> None:
        """Forget what was recorded after `step`: the run goes on from there."""

    def close(self) -> None:
        """Flush and let go."""
