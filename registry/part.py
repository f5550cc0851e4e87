"""Base classes of all parts: a class with options, and for parts of a model an `nn.Module` with a site."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from torch import Generator, Tensor, nn

from registry import options as _options
from registry.weight import Role

P = TypeVar("P", bound="Part")


class Part:
    """A registered class with `Options`, named in YAML by its file."""

    family: ClassVar[str]
    name: ClassVar[str] = ""
    """The registered name; set by `register`."""
    identity: ClassVar[bool] = False
    """It gives back what it is given first: `Site.optional` leaves it out."""

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

    @classmethod
    def derived(cls, options: Any, site: "Site") -> dict[str, Any]:
        """The values used at this site of options that may be left open, by name: `{"d_ff": 2048}`."""
        return {}


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
    head_dim: int | None = None
    """Width of a head's values, where heads' outputs are gated."""
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

    def optional(self, options: _options.Options | None, kind: type[P]) -> P | None:
        """As `build`; None where the part is an identity."""
        return None if self.chosen(options, kind).part.identity else self.build(options, kind)

    def chosen(self, options: _options.Options | None, kind: type[P]) -> _options.Options:
        """`options`, or those of the model's own part of that family when None."""
        return self.defaults[kind.family] if options is None else options

    def using(self, options: _options.Options | None, kind: type[P]) -> "Site":
        """This site with another default for a family; the same one when None."""
        return self if options is None else replace(self, defaults={**self.defaults, kind.family: options})

    def inside(self, *, d_model: int, n_heads: int | None = None) -> "Site":
        """The site of a child that sees other features than its parent: of one head, or of the inner width."""
        return replace(self, d_model=d_model, n_heads=n_heads)

    def of_heads(self, n_heads: int, head_dim: int) -> "Site":
        """The site of a child that takes the outputs of this many heads beside the features of its parent."""
        return replace(self, n_heads=n_heads, head_dim=head_dim)

    def among(self, n_experts: int) -> "Site":
        """The site of a child that deals with so many experts."""
        return replace(self, n_experts=n_experts)


class ModelPart(Part, nn.Module):
    """A part of a model: a module made from its options and its site."""

    roles: ClassVar[dict[str, Role]] = {}
    """What the linear and embedding layers of this part are for, by name, where its family does not tell:
    `{"out": "residual"}`. Initializers ask for it. A layer that options leave out may be named too."""
    constant: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that `reset_parameters` gives the same values whatever the seed, such as ones."""
    no_weight_decay: ClassVar[tuple[str, ...]] = ()
    """Names of this part's own parameters that never decay though they have two dimensions or more: vectors kept in one
    tensor. Those with fewer never do, nor does anything in a norm."""

    def __init__(self, options: Any, site: Site) -> None:
        nn.Module.__init__(self)

    def idle(self) -> int:
        """Number of parameters of this module that one token does not use: those of experts not chosen."""
        return idle_inside(self)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        """Fill the parameters and buffers that this module itself owns, drawing from `generator` alone.

        Linear and embedding children belong to the init part. The builder hands in memory of the CPU in float32, and a
        generator that depends on the seed and on this module's name; what is not filled is an error.
        """

    def after_step(self) -> dict[str, Tensor]:
        """After an optimizer step: move what no gradient moves; scalars for the metrics, which nothing waits for."""
        return {}


def idle_inside(module: nn.Module) -> int:
    """Number of parameters of the modules inside this one that a token does not use."""
    children = module.children()
    return sum(child.idle() if isinstance(child, ModelPart) else idle_inside(child) for child in children)
