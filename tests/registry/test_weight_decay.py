"""What decays: weights of linear layers and tables, and nothing else of any part, with any value of any option."""

import pytest
import torch
from torch import nn

from registry import core
from registry.contracts import ModelPart, Norm, Site
from registry.grouped import GroupedLinear
from registry.optimizer._shared import groups
from registry.options import Options
from transformer_kit.spec.errors import SpecError
from transformer_kit.testing.carriers import carrier
from transformer_kit.testing.values import variants

PARTS = [(f, n) for f in core.families() for n in core.names(f) if issubclass(core.get(f, n), ModelPart)]


def decaying(model: nn.Module) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for g in groups(model, 1.0) if g["weight_decay"] for p in g["params"]}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("family", "name"), PARTS)
def test_weights_of_layers_and_tables_decay_and_nothing_else(family: str, name: str) -> None:
    for what, options in variants(core.get(family, name)):
        try:
            model = carrier(options).assemble()
        except SpecError:  # options that go with others only
            continue
        expected = {
            parameter
            for parameter, _ in model.named_parameters()
            if isinstance(model.get_submodule(parameter.rpartition(".")[0]), (nn.Linear, GroupedLinear, nn.Embedding))
            and parameter.endswith(".weight")
        }
        assert decaying(model) == expected, what


def test_the_vectors_of_differential_attention_do_not_decay() -> None:
    part = core.get("mixer", "differential")
    mixer = part(part.Options(n_heads=2), Site(d_model=8, make=None, defaults=_defaults()))
    assert decaying(mixer) == {"q.weight", "k.weight", "v.weight", "out.weight"}


def test_parts_say_what_of_them_does_not_decay() -> None:
    class Wide(Norm):
        def __init__(self) -> None:
            super().__init__(Options(), Site(d_model=2))
            self.scale = nn.Parameter(torch.ones(2, 2))

    class Own(ModelPart):
        no_weight_decay = ("vectors",)

        def __init__(self) -> None:
            super().__init__(Options(), Site(d_model=2))
            self.vectors, self.matrix = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
            self.norm, self.out = Wide(), nn.Linear(2, 2)
            self.again = self.vectors

    assert decaying(Own()) == {"matrix", "out.weight"}


def _defaults() -> dict[str, Options]:
    return {f: core.get(f, n).Options() for f, n in (("position", "none"), ("kernel", "eager"))}
