"""The checks of first weights find a part that breaks the contract of initialization."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from registry import core
from registry.contracts import Activation, Head, Init, Site, Weight
from transformer_kit.testing import checks_for


class Scaled(Activation):
    """slope * relu(x); a right one, from which the wrong ones derive."""

    def __init__(self, options: Activation.Options, site: Site) -> None:
        super().__init__(options, site)
        self.slope = nn.Parameter(torch.empty(site.d_model))

    def reset_parameters(self, generator: Generator | None = None) -> None:
        nn.init.normal_(self.slope, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) * self.slope


def one_seed_for_all() -> type[Any]:
    class Fixed(Scaled):
        def reset_parameters(self, generator: Generator | None = None) -> None:
            nn.init.normal_(self.slope, generator=Generator().manual_seed(3))

    return Fixed


def global_numbers() -> type[Any]:
    class Global(Scaled):
        def reset_parameters(self, generator: Generator | None = None) -> None:
            nn.init.normal_(self.slope)

    return Global


def drawn_though_constant() -> type[Any]:
    class Declared(Scaled):
        constant = ("slope",)

    return Declared


def constant_and_silent() -> type[Any]:
    class Ones(Scaled):
        def reset_parameters(self, generator: Generator | None = None) -> None:
            nn.init.ones_(self.slope)

    return Ones


def unsaved_and_drawn() -> type[Any]:
    class Features(Scaled):
        def __init__(self, options: Activation.Options, site: Site) -> None:
            super().__init__(options, site)
            self.register_buffer("noise", torch.empty(site.d_model), persistent=False)

        def reset_parameters(self, generator: Generator | None = None) -> None:
            super().reset_parameters(generator)
            nn.init.normal_(self.noise, generator=generator)

    return Features


def unknown_role() -> type[Any]:
    class Unknown(Scaled):
        roles = {"slope": "slope"}

    return Unknown


def role_of_nothing() -> type[Any]:
    class Misspelt(Scaled):
        roles = {"otu": "residual"}

    return Misspelt


def unnamed_head() -> type[Any]:
    class Plain(Head):
        def __init__(self, options: Head.Options, site: Site) -> None:
            super().__init__(options, site)
            self.project_out = nn.Linear(site.d_model, site.vocab_size)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return self.project_out(x)

    return Plain


def deaf_to_its_generator() -> type[Any]:
    class Deaf(Init):
        def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
            nn.init.normal_(weight, generator=Generator().manual_seed(1))

    return Deaf


def forgets_a_role() -> type[Any]:
    class Partial(Init):
        def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
            if where.role != "router":
                nn.init.normal_(weight, generator=generator)

    return Partial


def forgets_biases() -> type[Any]:
    class Biasless(Init):
        def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
            nn.init.normal_(weight, generator=generator)

        def fill_bias(self, bias: Tensor, where: Weight, generator: Generator) -> None:
            pass

    return Biasless


BROKEN: list[tuple[str, Callable[[], type[Any]], str]] = [
    ("activation", one_seed_for_all, "seed_reaches_every_weight"),
    ("activation", global_numbers, "deterministic"),
    ("activation", drawn_though_constant, "seed_reaches_every_weight"),
    ("activation", constant_and_silent, "seed_reaches_every_weight"),
    ("activation", unsaved_and_drawn, "seed_reaches_every_weight"),
    ("activation", unknown_role, "roles_name_layers"),
    ("activation", role_of_nothing, "roles_name_layers"),
    ("head", unnamed_head, "projection_is_a_head"),
    ("init", deaf_to_its_generator, "fills_from_its_generator"),
    ("init", forgets_a_role, "fills_from_its_generator"),
    ("init", forgets_biases, "fills_from_its_generator"),
]


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    with core.scope():
        yield


@pytest.mark.parametrize(("family", "broken", "name"), BROKEN, ids=[f"{b.__name__}-{n}" for _, b, n in BROKEN])
def test_fault_is_found(family: str, broken: Callable[[], type[Any]], name: str) -> None:
    part = core.register("broken.part")(broken())
    check = next(c for c in checks_for(family) if c.name == name)
    with pytest.raises(AssertionError, match=r"\w"):
        check.run(part)


@pytest.mark.parametrize("name", ["seed_reaches_every_weight", "deterministic", "roles_name_layers"])
def test_the_right_part_passes(name: str) -> None:
    part = core.register("my.scaled")(Scaled)
    next(c for c in checks_for("activation") if c.name == name).run(part)
