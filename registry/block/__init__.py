"""Transformer layers: a mixer, an ffn, norms and residual connections."""

from typing import Annotated, Any

from torch import Tensor

from registry import options as _options
from registry.context import Context
from registry.ffn import FFNSlot
from registry.mixer import Mixer, MixerSlot
from registry.norm import Norm, NormSlot
from registry.part import ModelPart, Site
from registry.position import Position, PositionSlot
from registry.state import Capacity, LayerState


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


BlockSlot = Annotated[_options.Options, _options.Slot("block")]
