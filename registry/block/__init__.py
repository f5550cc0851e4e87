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
    """One transformer layer, x (B, T, D) -> (B, T, D): a mixer, an ffn, norms and residual connections."""

    family = "block"

    class Options(_options.Options):
        """Options of every block."""

        mixer: MixerSlot
        """The token mixer, such as attention."""
        ffn: FFNSlot
        """The feed-forward network."""
        norm: NormSlot | None = None
        """Norm of this block; the model's when not given."""
        position: PositionSlot | None = None
        """Positional encoding in this block's mixer; the model's when not given."""
        residual_scale: _options.Positive = 1.0
        """Multiplies the output of each branch before it is added to the residual stream."""

    mixer: Mixer

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, Any]:
        """Norm and positional encoding of this block; norms of its branches default to the block's."""
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
