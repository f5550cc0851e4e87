"""First weights: by seed and name alone, after `to_empty` as after `build`, whatever fills them."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from registry import core
from registry.context import Context
from registry.contracts import FFN, Init, Site, Weight
from transformer_kit import Spec, build
from transformer_kit.model.init import layers

IDS = torch.arange(12).view(2, 6) % 19


def page(**changes: Any) -> dict[str, Any]:
    moe = {"type": "moe", "n_experts": 3, "router": {"type": "softmax", "top_k": 2}, "expert": "mlp", "shared": "mlp"}
    attention = {"type": "attention", "n_heads": 2, "output_gate": "headwise", "sinks": True}
    kinds = {
        "a": {"mixer": attention, "ffn": {**moe, "shared_gate": True}},
        "b": {"mixer": {"type": "differential", "n_heads": 2, "bias": True}},
    }
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "mlp"}
    model = {
        "vocab_size": 19,
        "d_model": 8,
        "max_seq_len": 16,
        "position": "learned",
        "layers": {"count": 2, "block": block, "kinds": kinds, "pattern": ["a", "b"]},
        "init": "gpt2",
    }
    return {"model": {**model, **changes}}


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    with core.scope():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_usual_pattern_of_torch_gives_the_weights_of_build(dtype: torch.dtype) -> None:
    expected = build(Spec.of(page()), seed=5, dtype=dtype).state_dict()
    model = build(Spec.of(page()), device="meta", dtype=dtype)
    model.to_empty(device="cpu")
    for tensor in model.parameters():
        tensor.detach().fill_(float("nan"))
    before = torch.random.get_rng_state()
    with torch.device("meta"):  # as where a model is made that is none of ours
        model.init_weights(5)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    model.init_weights()
    zero = build(Spec.of(page()), dtype=dtype)
    assert torch.equal(model(IDS).logits, zero(IDS).logits)


def test_without_memory_nothing_is_filled() -> None:
    with pytest.raises(ValueError, match=r"embedding\.table\.weight is on the meta device.*to_empty"):
        build(Spec.of(page()), device="meta").init_weights(0)


def test_the_seed_reaches_what_a_mixer_draws_for_itself() -> None:
    def lambdas(seed: int) -> Tensor:
        return build(Spec.of(page()), seed=seed).layers[1].mixer.lambdas.detach()

    assert torch.equal(lambdas(0), lambdas(0))
    assert not torch.equal(lambdas(0), lambdas(1))
    many = torch.cat([lambdas(seed).flatten() for seed in range(40)])
    assert abs(float(many.std()) - 0.1) < 0.01


def test_an_initializer_knows_names_roles_and_layers() -> None:
    seen: dict[str, tuple[str, int | None, int]] = {}

    @core.register("my.watching")
    class Watching(Init):
        def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
            seen[where.name] = (where.role, where.layer, where.fan_in)
            nn.init.zeros_(weight)

        def fill_bias(self, bias: Tensor, where: Weight, generator: Generator) -> None:
            seen[where.name] = (where.role, where.layer, where.fan_in)
            nn.init.ones_(bias)

    model = build(Spec.of(page(init="my.watching")))
    expected = {
        "embedding.table.weight": ("embedding", None, 1),
        "position.table.weight": ("position", None, 1),
        "layers.0.mixer.q.weight": ("hidden", 0, 8),
        "layers.0.mixer.output_gate.projection.weight": ("gate", 0, 8),
        "layers.0.mixer.out.weight": ("residual", 0, 8),
        "layers.0.ffn.router.logit.weight": ("router", 0, 8),
        "layers.0.ffn.shared_gate.weight": ("gate", 0, 8),
        "layers.0.ffn.experts.stacked.down.weight": ("residual", 0, 32),
        "layers.0.ffn.shared.up.weight": ("hidden", 0, 8),
        "layers.1.mixer.out.weight": ("residual", 1, 8),
        "layers.1.mixer.out.bias": ("residual", 1, 8),
        "head.out.weight": ("head", None, 8),
    }
    assert {name: seen[name] for name in expected} == expected
    linear = {name for name, tensor in model.state_dict().items() if tensor.ndim > 1 and name.endswith(".weight")}
    assert {where.name for _, where in layers(model)} == linear
    assert bool((model.layers[1].mixer.out.bias == 1).all())


def test_modules_of_torch_inside_a_part_are_filled_by_the_seed() -> None:
    @core.register("my.borrowed")
    class Borrowed(FFN):
        constant = ("norm.weight", "norm.bias")

        def __init__(self, options: FFN.Options, site: Site) -> None:
            super().__init__(options, site)
            self.norm = nn.LayerNorm(site.d_model)
            self.mix = nn.Conv1d(site.d_model, site.d_model, 1)
            self.out = nn.Linear(site.d_model, site.d_model)

        def reset_parameters(self, generator: Generator | None = None) -> None:
            nn.init.zeros_(self.mix.bias)

        def forward(self, x: Tensor, context: Context) -> Tensor:
            return self.out(self.mix(self.norm(x).transpose(1, 2)).transpose(1, 2))

    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "my.borrowed"}
    spec = Spec.of(page(layers={"count": 1, "block": block}))
    before = torch.random.get_rng_state()
    first, again, other = (build(spec, seed=seed).layers[0].ffn for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.mix.weight, again.mix.weight)
    assert not torch.equal(first.mix.weight, other.mix.weight)
    assert bool((first.norm.weight == 1).all())
    assert not first.mix.bias.any()


def test_what_nothing_fills_is_an_error_that_names_it() -> None:
    @core.register("my.unfilled")
    class Unfilled(FFN):
        def __init__(self, options: FFN.Options, site: Site) -> None:
            super().__init__(options, site)
            self.mixed = nn.MultiheadAttention(site.d_model, 2)  # which has no reset_parameters

        def forward(self, x: Tensor, context: Context) -> Tensor:
            return x

    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": "my.unfilled"}
    with pytest.raises(ValueError, match=r"nothing fills layers\.0\.ffn\.mixed\.in_proj_weight; .* of Unfilled"):
        build(Spec.of(page(layers={"count": 1, "block": block})))
