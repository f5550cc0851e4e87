"""`init: torch` draws what PyTorch's own layers draw for themselves, biases included; `gpt2` scales by role."""

import pytest
import torch
from torch import Generator, nn

from registry import core
from registry.contracts import Init, Site, Weight
from transformer_kit.model.build import build
from transformer_kit.spec.read import read


@pytest.fixture
def part() -> Init:
    Torch = core.get("init", "torch")
    made = Torch(Torch.Options(), Site(d_model=24))
    assert isinstance(made, Init)
    return made


def test_linear_layers_are_those_of_pytorch(part: Init) -> None:
    torch.manual_seed(3)
    theirs = nn.Linear(24, 8)
    where, generator = Weight("layers.0.ffn.up.weight", "hidden", 0, 24), Generator().manual_seed(3)
    weight, bias = torch.empty(8, 24), torch.empty(8)
    part.fill(weight, where, generator)
    part.fill_bias(bias, where, generator)
    torch.testing.assert_close(weight, theirs.weight.detach())
    torch.testing.assert_close(bias, theirs.bias.detach())


@pytest.mark.parametrize("role", ["embedding", "position"])
def test_tables_are_those_of_pytorch(part: Init, role: str) -> None:
    torch.manual_seed(3)
    theirs = nn.Embedding(20, 24)
    weight = torch.empty(20, 24)
    part.fill(weight, Weight("embedding.table.weight", role, None, 1), Generator().manual_seed(3))  # type: ignore[arg-type]
    torch.testing.assert_close(weight, theirs.weight.detach())


@pytest.mark.parametrize("tied", ["true", "false"])
def test_every_bias_is_drawn_that_of_a_head_too(tied: str) -> None:
    sets = ["model.d_model=32", "model.layers.count=1", "model.layers.block.ffn.bias=true", f"model.head.tied={tied}"]
    model, other = (build(read("tutorial", sets), seed=seed) for seed in (0, 1))
    biases = {n: p for n, p in model.named_parameters() if n.endswith("bias") and "norm" not in n}
    assert set(biases) == {
        *("layers.0.mixer.out.bias", "layers.0.ffn.up.bias", "layers.0.ffn.down.bias"),
        "head.bias",
    }
    for name, bias in biases.items():
        fan_in = 128 if "down" in name else 32
        assert 0.5 * fan_in**-0.5 < bias.abs().max() <= fan_in**-0.5
        assert not torch.equal(bias, other.get_parameter(name))


def test_gpt2_scales_by_role() -> None:
    model = build(read("gpt2-124m", ["model.d_model=96", "model.layers.count=8", "model.init=gpt2"]))
    scales = {"embedding.table": 0.02, "position.table": 0.01, "layers.3.mixer.q": 0.02}
    scales |= {"layers.3.mixer.out": 0.005, "layers.3.ffn.down": 0.005}
    for name, std in scales.items():
        assert model.get_parameter(f"{name}.weight").std().item() == pytest.approx(std, rel=0.05)
