"""Predicted memory of a training step, against what a real step allocates and keeps."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from registry import core
from transformer_kit import build
from transformer_kit.cost.card import card
from transformer_kit.spec.schema import RunSpec, Spec
from transformer_kit.train.precision import Placement
from transformer_kit.train.step import Batch, Step
from transformer_kit.transform import onednn_linear as linear
from transformer_kit.transform.activation_checkpointing import activation_checkpointing
from transformer_kit.transform.freeze import freeze
from transformer_kit.transform.optimizer_in_backward import OptimizerInBackward
from transformer_kit.transform.pipeline import transformed

Page = Callable[..., Spec]
MIXTURE = {
    "type": "moe",
    "n_experts": 64,
    "router": {"type": "softmax", "top_k": 2},
    "expert": {"type": "gated", "d_ff": 64},
}
LOCAL = {"kinds": {"local": {"mixer": {"window": 16}}}, "pattern": ["local", "block*3"]}
CASES: dict[str, dict[str, Any]] = {
    "rotations, tied": {},
    "large vocabulary": {"vocab_size": 8192},
    "own head, added positions": {"head": "lm", "position": "learned", "norm": "layer_norm"},
    "biased scores": {"position": "alibi"},
    "dropout": {"dropout": 0.1},
    "experts": {"block": {"ffn": MIXTURE}},
    "windows in a pattern": {"layers": LOCAL},
    "last layer larger": {"layers": {"at": {-1: {"ffn": {"d_ff": 2048}}}}},
    "softcaps": {"mixer": {"softcap": 50.0}, "head": {"type": "lm", "tied": True, "softcap": 30.0}},
}


@pytest.fixture(autouse=True)
def torchs_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted; oneDNN's products copy slopes that they read by columns."""
    monkeypatch.setattr(linear, "prefers_onednn", lambda: False)


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


def allocated(
    spec: Spec,
    batch: int,
    seq: int,
    *,
    accumulate: int = 1,
    again: bool = False,
    in_backward: bool = False,
    dtype: torch.dtype = torch.float32,
    frozen: tuple[str, ...] = (),
) -> int:
    """The most bytes that a step of `kit train` holds at once: weights, Adam's averages, and what torch allocates."""
    model = build(spec)
    freeze(model, frozen)
    model = transformed(model, activation_checkpointing=activation_checkpointing if again else None)
    optimizer = part("optimizer", "adamw", lr=1e-4).make(model)
    transform = OptimizerInBackward(optimizer) if in_backward else None
    placement, max_grad_norm = Placement(torch.device("cpu"), dtype), None if in_backward else 1.0
    step = Step(
        transformed(model, optimizer_in_backward=transform),
        part("objective", "causal_lm"),
        optimizer,
        placement,
        max_grad_norm,
        transform,
    )
    batches = [Batch(torch.randint(spec.model.vocab_size, (batch, seq + 1)), None)] * accumulate
    step(batches, 1.0)
    optimizer.zero_grad(set_to_none=True)
    gc.collect()  # what an earlier test left would be given back while this one is watched
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        step(batches, 1.0)
    events = found.profiler.kineto_results.events()
    alive = peak = 0
    for _, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        alive += size
        peak = max(peak, alive)
    return sum((3 if p.requires_grad else 1) * p.nbytes for p in model.parameters()) + peak


def part(family: str, name: str, **options: Any) -> Any:
    """A part from the registry."""
    found = core.get(family, name)
    return found(found.Options(**options))


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_peak_is_what_a_real_step_allocates(page: Page, options: dict[str, Any]) -> None:
    spec = page(**options)
    assert card(spec, batch=4, seq=96).memory.peak == pytest.approx(allocated(spec, 4, 96), rel=0.02)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_products_in_bfloat16_are_counted_as_such(page: Page, options: dict[str, Any], again: bool) -> None:
    spec = page(**options)
    found = card(spec, batch=4, seq=96, activation_checkpointing=again, precision="bfloat16").memory.peak
    assert found == pytest.approx(allocated(spec, 4, 96, again=again, dtype=torch.bfloat16), rel=0.02)
    assert found != card(spec, batch=4, seq=96, activation_checkpointing=again).memory.peak


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
def test_products_of_onednn_take_the_copy_of_a_slope_more(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, batch, seq = page(vocab_size=8192), 4, 96
    plain = allocated(spec, batch, seq)
    monkeypatch.setattr(linear, "prefers_onednn", lambda: True)
    monkeypatch.setattr(linear, "WORK", 1)
    more = allocated(spec, batch, seq) - plain
    copy = 4 * batch * seq * 2048  # of a piece of the logits
    assert 0 < more <= 2 * copy


@pytest.mark.parametrize("batch", [1, 8])
def test_the_peak_of_few_tokens_is_the_optimizers_and_of_many_the_passes(page: Page, batch: int) -> None:
    spec = page(layers={"count": 8}, vocab_size=2048)
    found = card(spec, batch=batch, seq=16).memory
    assert found.peak == pytest.approx(allocated(spec, batch, 16), rel=0.02)
    assert found.peak < sum(found[:-1])


def test_logits_in_chunks(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = page(vocab_size=8192)
    whole = card(spec, batch=4).memory
    monkeypatch.setattr("transformer_kit.model.model.chunk_size", lambda vocab, tokens: 64)
    chunked = card(spec, batch=4).memory
    assert chunked.logits < whole.logits / 2
    assert chunked.peak == pytest.approx(allocated(spec, 4, 128), rel=0.02)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
def test_accumulation_keeps_gradients(page: Page, again: bool) -> None:
    run = {
        "optimizer": {"type": "adamw", "lr": 0.1},
        "train": {"steps": 1, "gradient_accumulation": 2, "batch_size": 4},
    }
    spec = page(layers={"count": 8})
    twice = card(RunSpec.of({"model": spec.resolved()["model"], **run}), seq=32, activation_checkpointing=again).memory
    assert twice.peak == pytest.approx(allocated(spec, 4, 32, accumulate=2, again=again), rel=0.02)
    assert twice.peak > card(spec, batch=4, seq=32, activation_checkpointing=again).memory.peak


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("frozen", ["embedding.*", "layers.0.*", "layers.*"])
def test_what_is_frozen_has_no_gradients(page: Page, frozen: str, precision: str) -> None:
    spec = page(layers={"count": 8}, head={"type": "lm", "tied": False})
    train = {"steps": 1, "batch_size": 4, "freeze": [frozen]}
    run = {"optimizer": {"type": "adamw", "lr": 0.1}, "train": train, "hardware": {"precision": precision}}
    found = card(RunSpec.of({"model": spec.resolved()["model"], **run}), seq=96).memory
    real = allocated(spec, 4, 96, dtype=getattr(torch, precision), frozen=(frozen,))
    assert found.peak == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    "head", [{"type": "lm", "tied": True}, {"type": "lm", "tied": False}], ids=["tied", "own head"]
)
def test_steps_in_the_backward_pass_keep_no_gradients(page: Page, head: dict[str, Any], again: bool) -> None:
    spec = page(layers={"count": 8}, head=head)
    within = card(spec, batch=4, seq=32, activation_checkpointing=again, optimizer_in_backward=True).memory
    after = card(spec, batch=4, seq=32, activation_checkpointing=again).memory
    assert within.peak == pytest.approx(allocated(spec, 4, 32, again=again, in_backward=True), rel=0.02)
    assert within.gradients < after.gradients / 8
    if again:
        assert within.peak < after.peak - after.gradients / 2


@pytest.mark.parametrize("options", [{}, {"dropout": 0.1, "layers": LOCAL}], ids=["plain", "kinds and dropout"])
def test_recomputing_layers_keep_their_input_alone(page: Page, options: dict[str, Any]) -> None:
    spec = page(**options)
    kept, again = card(spec, batch=4), card(spec, batch=4, activation_checkpointing=True)
    assert again.memory.activations < kept.memory.activations / 4
    assert again.memory.peak == pytest.approx(allocated(spec, 4, 128, again=True), rel=0.02)
    assert again.flops.forward_per_token == kept.flops.forward_per_token
    assert 1.2 < again.flops.train_per_token / kept.flops.train_per_token < 4 / 3  # the head is not computed again


def test_a_run_says_when_its_optimizer_steps(page: Page) -> None:
    train = {"steps": 1, "batch_size": 4, "max_grad_norm": None}
    run = {"optimizer": {"type": "adamw", "lr": 0.1}, "train": train, "hardware": {"optimizer_in_backward": True}}
    model = page().resolved()["model"]
    found = card(RunSpec.of({"model": model, **run}))
    assert found.memory == card(page(), batch=4, optimizer="adamw", optimizer_in_backward=True).memory
    added = RunSpec.of({"model": model, **run, "train": {**train, "gradient_accumulation": 2}, "hardware": {}})
    with pytest.raises(ValueError, match=r"accumulates no gradients, but train\.gradient_accumulation is 2"):
        card(added, optimizer_in_backward=True)


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
    tokens, width, words = 64, 128, 5120 - 512
    assert large.logits - small.logits == 4 * words * (tokens + width)  # logits once, and the table's gradient
