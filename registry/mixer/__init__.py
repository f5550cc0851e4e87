"""Token mixers: attention and its variants."""

from typing import Annotated, Any, ClassVar

from torch import Tensor

from registry import core
from registry.context import Context
from registry.options import Options, Slot
from registry.part import ModelPart, Site
from registry.position import Position
from registry.state import Capacity, LayerState


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


MixerSlot = Annotated[Options, Slot("mixer")]
