"""Activation checkpointing gives the same losses and gradients, bit for bit."""

from typing import Any

import pytest
import torch
from torch import Tensor

from registry.context import Context
from transformer_kit import build
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Spec
from transformer_kit.transform.activation_checkpointing import Checkpointed, activation_checkpointing

MOE = {
    "type": "moe",
    "n_experts": 4,
    "router": {"type": "softmax", "top_k": 2, "learning": {"load_balancing_loss": 0.5}},
    "expert": {"type": "gated", "d_ff": 16},
}
CASES: dict[str, dict[str, Any]] = {
    "shared rotations": {"position": "rope"},
    "shared distances": {"position": "alibi"},
    "windows": {"position": "rope", "mixer": {"window": 8}},
    "dropout": {"position": "learned", "dropout": 0.2},
    "experts with a loss": {"ffn": MOE, "dropout": 0.2},
}


def model_of(options: dict[str, Any], *, again: bool) -> Model:
    mixer = {"type": "attention", "n_heads": 2, **options.get("mixer", {})}
    ffn = options.get("ffn", {"type": "gated", "d_ff": 32})
    rest = {key: value for key, value in options.items() if key not in ("mixer", "ffn")}
    layers = {"count": 3, "block": {"type": "pre_norm", "mixer": mixer, "ffn": ffn}}
    model = build(Spec.of({"model": {"vocab_size": 61, "d_model": 16, "max_seq_len": 24, "layers": layers, **rest}}))
    if again:
        activation_checkpointing(model)
    return model


def learned(model: Model, segments: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor | None]]:
    torch.manual_seed(1)
    tokens, targets = torch.randint(61, (2, 2, 20), generator=torch.Generator().manual_seed(2))
    loss = model(tokens, targets, segments=segments, skip_logits=True).loss
    assert loss is not None
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_losses_and_gradients_are_the_same(options: dict[str, Any]) -> None:
    segments = torch.arange(20).floor_divide(7).expand(2, -1)
    for given in (None, segments):
        (kept, wanted), (again, got) = (learned(model_of(options, again=flag), given) for flag in (False, True))
        assert torch.equal(again, kept)
        assert wanted.keys() == got.keys()
        for name, gradient in wanted.items():
            assert gradient is not None
            assert torch.equal(got[name], gradient), name  # type: ignore[arg-type]


class Sharing(torch.nn.Module):
    """A layer that multiplies by what the first layer computes for all, and which learns."""

    def __init__(self, shared: torch.nn.Parameter) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, x: Tensor, context: Context, state: None = None) -> Tensor:
        return x * context.cached("shared", lambda: self.shared.exp().tanh())


def test_what_layers_share_may_learn() -> None:
    found = []
    for again in (False, True):
        shared = torch.nn.Parameter(torch.arange(4.0))
        model: Any = torch.nn.Module()
        model.layers = torch.nn.ModuleList(Sharing(shared) for _ in range(3))
        model.blocks = lambda model=model: model.layers
        if again:
            activation_checkpointing(model)
        x, context = torch.ones(1, 2, 4), Context.of(torch.zeros(1, 2, dtype=torch.long))
        for layer in model.layers:
            x = layer(x, context, None)
        x.sum().backward()
        found.append(shared.grad)
    assert torch.equal(*found)


def test_random_numbers_go_on_as_if_nothing_had_been_computed_twice() -> None:
    drawn = []
    for again in (False, True):
        learned(model_of({"dropout": 0.2}, again=again))
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)


def test_decoding_and_evaluation_are_left_alone() -> None:
    plain, wrapped = (model_of({"position": "rope"}, again=again).eval() for again in (False, True))
    assert plain.generate([[1, 2, 3]], max_new_tokens=5) == wrapped.generate([[1, 2, 3]], max_new_tokens=5)
    assert list(plain.state_dict()) == list(wrapped.state_dict())


def test_a_compiled_model_is_one_graph() -> None:
    tokens = torch.randint(61, (2, 20), generator=torch.Generator().manual_seed(2))
    found = []
    for again in (False, True):
        model = model_of({"position": "rope"}, again=again)
        called = torch.compile(model, backend="aot_eager", fullgraph=True) if again else model
        loss = called(tokens, tokens).loss
        loss.backward()
        found.append((loss.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(found[0], found[1])


def test_layers_show_what_they_are_and_keep_their_names() -> None:
    plain, checkpointed = (model_of({"position": "rope"}, again=again) for again in (False, True))
    assert [name for name, _ in checkpointed.named_parameters()] == [name for name, _ in plain.named_parameters()]
    kind = type(plain.layers[0])
    activation_checkpointing(checkpointed)  # a second time changes nothing
    for layer in checkpointed.layers:
        assert isinstance(layer, Checkpointed)
        assert isinstance(layer, kind)
        assert type(layer).__mro__[:3] == (type(layer), Checkpointed, kind)
    assert f"Checkpointed{kind.__name__}(" in str(checkpointed)


def test_layers_keep_their_input_alone() -> None:
    sizes = []
    for again in (False, True):
        kept: list[int] = []
        model = model_of({"position": "rope"}, again=again)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            model(torch.zeros(2, 20, dtype=torch.long))
        sizes.append(sum(kept))
    assert sizes[1] < sizes[0] / 4
