"""The order in which transforms are applied to a model, for any order of the caller's arguments.

    model = transformed(assemble(spec), materialize=partial(materialize, device="cpu"), fill=partial(fill, seed=0))

A transform is a function Model -> Model in a file of its own. It swaps or wraps modules visibly, or changes a property
of parameters, and returns the model. Names without a transform in this package are reserved places in the order.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformer_kit.model.model import Model

Transform = Callable[["Model"], "Model"]

PHASES: dict[str, tuple[str, ...]] = {
    "meta": ("freeze", "adapters", "quantization", "onednn_linear", "activation_checkpointing", "tensor_parallel"),
    "wrap": ("fsdp", "compile"),
    "weights": ("materialize", "fill", "load"),
    "training": ("optimizer_in_backward",),
    "inference": ("untied_head", "fused_projections", "packed_linear", "int8"),
}
"""Names by phase, in their order.

meta       the model on the meta device: its modules, and which parameters are frozen
wrap       each layer, inside sharding or compilation
weights    memory, and its values
training   transforms that need the allocated parameters
inference  transforms for fast generation, after which the model cannot train
"""
ORDER = tuple(name for names in PHASES.values() for name in names)


def transformed(model: "Model", **transforms: Transform | None) -> "Model":
    """`model` after each of `transforms`, by their names in ORDER; None skips one."""
    unknown = [name for name in transforms if name not in ORDER]
    if unknown:
        raise ValueError(f"transforms must be among {', '.join(ORDER)}, got '{unknown[0]}'")
    for name in ORDER:
        transform = transforms.get(name)
        if transform is not None:
            model = transform(model)
    return model
