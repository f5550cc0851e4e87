"""Checks of initial weights: how they depend on the seed, and which facts an initializer gets."""

from itertools import product
from typing import Any, get_args

import torch

from registry.contracts import Init, ModelPart, Role, Weight
from transformer_kit.cost.count import reads_table
from transformer_kit.model.init import LAYERS, layers
from transformer_kit.testing.checks import MODEL, check
from transformer_kit.testing.model_checks import standing
from transformer_kit.testing.place_checks import each


@check(MODEL)
def seed_reaches_every_weight(part: Any) -> None:
    """Another seed changes every parameter except those in `constant`, and no non-persistent buffer."""
    for what, held in standing(part):
        one, two = held.build(0), held.build(1)
        chosen = {
            where.name.removesuffix("weight") for _, where in layers(one)
        }  # by the init part, which has its own check
        named = {f"{n}.{c}" for n, m in one.named_modules() if isinstance(m, ModelPart) for c in m.constant}
        for (name, a), b in zip(one.named_parameters(), two.parameters(), strict=True):
            same = torch.equal(a, b)
            told = f"{what}: {name} is {'the same for every seed' if same else 'constant, and the seed changes it'}"
            if name in named:
                assert same, told
            elif name.removesuffix("weight").removesuffix("bias") not in chosen:
                assert not same, f"{told}; draw it from reset_parameters' generator, or name it in `constant`"
        unsaved = {n: b for n, b in one.named_buffers() if n not in one.state_dict()}
        for name, buffer in two.named_buffers():
            kept = name not in unsaved or torch.equal(buffer, unsaved[name])
            assert kept, f"{what}: {name} depends on the seed and is in no file, so a saved model would change"


@check(MODEL)
def roles_name_layers(part: Any) -> None:
    """`roles` lists all linear and embedding layers, present or left out, with the facts for an initializer."""
    if not issubclass(part, ModelPart):
        return
    for name, role in part.roles.items():
        assert role in get_args(Role), f"roles: {name} is a '{role}'; choose {', '.join(get_args(Role))}"
    made = [m for _, held in standing(part) for m in held.assemble().modules() if isinstance(m, part)]
    for name in part.roles:
        found = [getattr(m, name, "nothing") for m in made]
        named = all(f is None or isinstance(f, LAYERS) for f in found)
        assert named, f"roles: '{name}' is no linear or embedding layer, and not None where options leave it out"


@check("head")
def projection_is_a_head(part: Any) -> None:
    """Where logits do not use the embedding's weight, initializers get the role of the weight that they use."""
    for what, held in standing(part):
        model = held.assemble()
        roles = {where.name: where.role for _, where in layers(model)}
        own = any(name.startswith("head.") and role == "head" for name, role in roles.items())
        assert own or reads_table(model), f"{what}: no weight of it is a head; say which by `roles`"


@check("init")
@torch.no_grad()
def fills_from_its_generator(part: Any) -> None:
    """Weights and biases of every role are filled completely, in place, with random numbers of the given generator.

    Another seed gives other values, unless all values are equal.
    """
    assert issubclass(part, Init)
    for what, init in each(part):
        for role, layer, shape in product(get_args(Role), (None, 1), ((7, 5), (5, 7), (1, 3), (4,))):
            where = Weight(f"some.{'weight' if len(shape) > 1 else 'bias'}", role, layer, fan_in=shape[-1])
            fill = init.fill if len(shape) > 1 else init.fill_bias
            drawn, before = [], torch.random.get_rng_state()
            for seed in (0, 0, 1):
                weight = torch.full(shape, float("nan"))
                fill(weight, where, torch.Generator().manual_seed(seed))
                drawn.append(weight)
            told = f"{what}: {role} {shape}"
            assert torch.isfinite(drawn[0]).all(), f"{told} is not filled"
            assert torch.equal(drawn[0], drawn[1]), f"{told} is not decided by the generator"
            assert len(drawn[0].unique()) == 1 or not torch.equal(drawn[0], drawn[2]), f"{told}: no generator is used"
            assert torch.equal(before, torch.random.get_rng_state()), f"{told}: draws global random numbers"
