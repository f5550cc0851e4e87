"""Predicted memory of a training step, against what a real step allocates and keeps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from transformer_kit import build
from transformer_kit.cost.card import card
from transformer_kit.spec.schema import Spec

Page = Callable[..., Spec]
LOCAL = {"kinds": {"local": {"mixer": {"window": 16}}}, "pattern": ["local", "block*3"]}
CASES: dict[str, dict[str, Any]] = {
    "rotations, tied": {},
    "large vocabulary": {"vocab_size": 8192},
    "own head, added positions": {"head": "lm", "position": "learned", "norm": "layer_norm"},
    "biased scores": {"position": "alibi"},
    "dropout": {"dropout": 0.1},
    "windows in a pattern": {"layers": LOCAL},
    "last layer larger": {"layers": {"at": {-1: {"ffn": {"d_ff": 2048}}}}},
    "softcaps": {"mixer": {"scores": {"softcap": 50.0}}, "head": {"type": "lm", "tied": True, "softcap": 30.0}},
}


def kept(spec: Spec, batch: int, seq: int) -> int:
    """Bytes of the distinct storages, weights aside, that autograd keeps for the backward pass."""
    model = build(spec)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    tokens = torch.randint(spec.model.vocab_size, (batch, seq))
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens)
    return sum(t.untyped_storage().nbytes() for address, t in found.items() if address not in weights)


def allocated(spec: Spec, batch: int, seq: int) -> int:
    """The most bytes that a step holds at once: weights, gradients, Adam's averages, and what torch allocates."""
    model = build(spec)
    tokens = torch.randint(spec.model.vocab_size, (batch, seq))
    model(tokens, tokens).loss.backward()  # from here on, gradients are there
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        model(tokens, tokens).loss.backward()
    events = found.profiler.kineto_results.events()
    alive = peak = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        alive += size
        peak = max(peak, alive)
    return 4 * sum(p.nbytes for p in model.parameters()) + peak


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_total_is_what_a_real_step_allocates(page: Page, options: dict[str, Any]) -> None:
    spec = page(**options)
    assert card(spec, batch=4, seq=96).memory.total == pytest.approx(allocated(spec, 4, 96), rel=0.02)


def test_activations_are_what_autograd_keeps(page: Page) -> None:
    spec = page()
    assert card(spec, batch=4).memory.activations == pytest.approx(kept(spec, 4, 128), rel=0.1)


def test_every_further_layer_costs_the_same_and_shared_tables_once(page: Page) -> None:
    three, seven, eight = (card(page(layers={"count": n}), seq=64).memory.activations for n in (3, 7, 8))
    assert (seven - three) == 4 * (eight - seven)
    assert eight < 8 * (eight - seven) + 64 * 32 * 4 * 4 + 64 * 128 * 4 * 4  # rotations, embedding, last norm


def test_logits_grow_with_the_vocabulary_and_activations_do_not(page: Page) -> None:
    small, large = (card(page(vocab_size=v), seq=64).memory for v in (512, 5120))
    assert small.activations == large.activations
    assert large.logits > 9 * small.logits


def test_gradients_of_parameters_count_once(page: Page) -> None:
    memory = card(page(head="lm"), seq=1).memory
    assert memory.logits + memory.activations < memory.gradients / 10
