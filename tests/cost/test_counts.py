"""Parameters, FLOPs and decode state, against arithmetic done by hand."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from registry import core
from transformer_kit import build
from transformer_kit.cost.card import card
from transformer_kit.cost.tree import listed
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import RunSpec, Spec
from transformer_kit.train.throughput import flops_per_token

Page = Callable[..., Spec]
V, D, T, L, F, K, G = 512, 128, 128, 4, 256, 32, 2
LAYER = 2 * D * D + 2 * D * G * K + 3 * D * F
"""Weights that one layer of the `page` fixture multiplies by."""


def test_parameters_by_hand(page: Page) -> None:
    found = card(page()).parameters
    norms = (2 * L + 1) * D
    assert found.total == V * D + L * LAYER + norms
    assert found.non_embedding == L * LAYER + norms
    assert found.active == found.trainable == found.total


def test_a_tied_table_counts_once_and_an_own_one_twice(page: Page) -> None:
    tied, own = card(page()).parameters, card(page(head="lm")).parameters
    assert (tied.tied, own.tied) == (V * D, 0)
    assert own.total - tied.total == V * D
    assert own.non_embedding == tied.non_embedding


def test_parameters_equal_the_unique_tensors_of_a_real_model(page: Page) -> None:
    spec = page(position="learned", head={"type": "lm", "bias": True})
    model = build(spec)
    real = {p.data_ptr(): p.numel() for p in model.parameters()}
    assert card(spec).parameters.total == sum(real.values())


@pytest.mark.parametrize(
    ("name", "non_embedding"), [("pythia-160m", 85_056_000), ("gpt2-124m", 85_056_000), ("llama-2-7b", 6_476_271_616)]
)
def test_non_embedding_parameters_as_published(name: str, non_embedding: int) -> None:
    assert card(read(name), seq=16).parameters.non_embedding == non_embedding


@pytest.mark.parametrize("softcap", [None, 50.0], ids=["fused", "plain"])
@pytest.mark.parametrize(("batch", "seq"), [(1, 128), (3, 40)])
def test_flops_by_hand(page: Page, softcap: float | None, batch: int, seq: int) -> None:
    """2 N + 4 L D T forward and thrice that in all, N being every weight that multiplies: head yes, lookup no."""
    found = card(page(mixer={"softcap": softcap}), batch=batch, seq=seq).flops
    multiplied = L * LAYER + V * D
    assert found.forward_per_token == 2 * multiplied + 4 * L * D * seq
    assert found.train_per_token == 3 * found.forward_per_token


@pytest.mark.parametrize("name", ["tutorial", "gpt2-124m", "gemma-2-2b", "mpt-7b"])
def test_flops_are_what_torch_counts(name: str) -> None:
    spec = read(name)
    tokens = torch.zeros(1, 16, dtype=torch.long, device="meta")
    model = build(spec, device="meta")
    with FlopCounterMode(display=False) as forward:
        model(tokens)
    with FlopCounterMode(display=False) as both:
        model(tokens, tokens, skip_logits=True).loss.backward()
    found = card(spec, seq=16).flops
    counted = forward.get_total_flops(), both.get_total_flops()
    assert (16 * found.forward_per_token, 16 * found.train_per_token) == counted


def test_one_count_serves_the_card_mfu_and_torch() -> None:
    """6 N + 12 L D T for each token, with the vocabulary of Llama 3, whose loss is computed in chunks."""
    vocab, width, seq, d_ff = 128_256, 512, 4_096, 1_408
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 8}, "ffn": {"type": "gated", "d_ff": d_ff}}
    sizes = {"vocab_size": vocab, "d_model": width, "max_seq_len": seq}
    spec = Spec.of({"model": {**sizes, "layers": {"count": 1, "block": block}}})
    expected = 6 * (vocab * width + 4 * width**2 + 3 * width * d_ff) + 12 * width * seq
    model = build(spec, device="meta")
    objective = core.get("objective", "causal_lm")
    with FlopCounterMode(display=False) as counter:
        model(*torch.zeros(2, 1, seq, dtype=torch.long, device="meta"), skip_logits=True).loss.backward()
    assert card(spec, seq=seq).flops.train_per_token == expected
    assert flops_per_token(model, objective(objective.Options()), seq) == expected
    assert counter.get_total_flops() == expected * seq


def test_the_state_is_as_large_as_a_real_one(page: Page) -> None:
    widths = {"kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16}
    mixer = {"type": "mla", "n_heads": 4, **widths}
    kinds = {"local": {"mixer": {"window": 16}}, "mla": {"mixer": mixer}}
    spec = page(layers={"count": 3, "kinds": kinds, "pattern": ["local", "block", "mla"]})
    state = build(spec).state(3, 100)
    held = [t for layer in state.layers if layer is not None for t in layer.tensors]
    assert len(held) == 2 + 2 + 1
    assert card(spec, batch=3, seq=100).state.total == sum(t.untyped_storage().nbytes() for t in held)


def test_grouped_heads_save_state_in_proportion(page: Page) -> None:
    many, grouped, one = (card(page(mixer={"n_kv_heads": g})).state for g in (4, 2, 1))
    assert many.total == 2 * grouped.total == 4 * one.total
    assert grouped.bytes_per_token == L * 2 * G * K * 4
    assert grouped.total == T * grouped.bytes_per_token


def test_a_window_bounds_the_state_of_its_layers(page: Page) -> None:
    spec = page(layers={"kinds": {"local": {"mixer": {"window": 16}}}, "pattern": ["local", "block"]})
    token = 2 * G * K * 4
    found = card(spec, batch=3).state
    assert found.bytes_per_token == L * token
    assert found.total == 3 * token * (2 * 16 + 2 * T)
    assert card(spec, seq=10).state.total == 10 * L * token


def test_type_scales_bytes_and_not_flops(page: Page) -> None:
    wide, narrow = card(page()), card(page(), dtype="bfloat16")
    for what in ("weights", "gradients", "optimizer"):
        assert getattr(wide.memory, what) == 2 * getattr(narrow.memory, what)
    assert wide.memory.activations > narrow.memory.activations > wide.memory.activations / 2
    assert wide.state.total == 2 * narrow.state.total
    assert wide.flops == narrow.flops


def test_batch_scales_what_tokens_need_and_nothing_else(page: Page) -> None:
    one, four = card(page()), card(page(), batch=4)
    assert one.flops == four.flops
    assert one.memory[:3] == four.memory[:3]
    assert four.memory.activations == pytest.approx(4 * one.memory.activations, rel=0.02)  # rotations are shared
    assert four.state.total == 4 * one.state.total


@pytest.mark.parametrize(
    "wrong", [{"batch": 0}, {"seq": 0}, {"seq": 129}, {"dtype": "int8"}, {"batch": 10**14}], ids=str
)
def test_sizes_that_cannot_be_are_refused(page: Page, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        card(page(), **wrong)  # type: ignore[arg-type]


def test_a_spec_that_cannot_be_built_is_refused_as_ever(page: Page) -> None:
    with pytest.raises(SpecError, match="n_heads must divide d_model"):
        card(page(mixer={"n_heads": 3, "n_kv_heads": 3}))


def test_the_run_decides_length_frozen_parameters_and_optimizer(page: Page) -> None:
    model = page().resolved()["model"]
    run: dict[str, dict[str, object]] = {
        "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9},
        "train": {"steps": 1, "seq_len": 32},
    }
    whole = card(RunSpec.of({"model": model, **run}))
    assert whole.seq == 32
    assert whole.memory.optimizer == whole.memory.gradients == whole.memory.weights
    frozen = {**run, "train": {**run["train"], "freeze": ["embedding.*", "layers.*"]}}
    part = card(RunSpec.of({"model": model, **frozen}))
    assert part.parameters.trainable == D
    assert part.memory.optimizer == part.memory.gradients == 4 * D


def test_an_optimizer_is_asked_what_it_keeps(page: Page) -> None:
    weights = card(page()).memory.weights
    adam = core.get("optimizer", "adamw").Options(lr=1e-3)
    kept = card(page(), optimizer=adam)
    assert 0 <= kept.memory.optimizer - 2 * weights < 1024  # beside the averages, a step count for each tensor
    assert not any("assumed" in note for note in kept.notes)
    assert card(page(), optimizer="sgd").memory.optimizer == 0
    assumed = card(page())
    assert assumed.memory.optimizer == 2 * weights
    assert any("assumed" in note for note in assumed.notes)


def test_initial_loss_is_measured_where_the_model_is_small(page: Page) -> None:
    small = card(page()).loss
    assert small.initial == pytest.approx(small.uniform, rel=0.05)
    large = card(read("gpt2-124m"), seq=16).loss
    assert large.initial is None
    assert "64,000,000" in str(large.skipped)


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([3], "3"),
        ([0, 1], "0, 1"),
        (list(range(32)), "0-31"),
        ([0, 2, 4, 6], "0, 2, .. 6"),
        ([0, 1, 2, 5, 7], "0-2, 5, 7"),
        ([0, 2, 3, 5, 7, 9, 11, 13, 15, 20], "0, 2-3, 5, .., 20"),
    ],
)
def test_indices_in_few_letters(indices: list[int], text: str) -> None:
    assert listed(indices) == text


def test_a_mixture_as_an_expert_is_idle_once() -> None:
    """One token visits 2 of 6 experts, and in each of these 1 of 4."""
    inner = {
        "type": "moe",
        "n_experts": 4,
        "router": {"type": "softmax", "top_k": 1},
        "expert": {"type": "gated", "d_ff": 8},
    }
    ffn = {"type": "moe", "n_experts": 6, "router": {"type": "softmax", "top_k": 2}, "expert": inner}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": ffn}
    sizes = {"vocab_size": 11, "d_model": 8, "max_seq_len": 8, "layers": {"count": 2, "block": block}}
    counted = card(Spec.of({"model": sizes})).parameters
    innermost, between = 3 * 8 * 8, 4 * 8  # an expert of an expert; the inner router
    expert = 4 * innermost + between
    assert counted.total - counted.active == 2 * (4 * expert + 2 * 3 * innermost)


def test_costs_are_counted_where_no_gradients_are(page: Page) -> None:
    expected = card(page()).text()
    with torch.no_grad():
        assert card(page()).text() == expected
    with torch.inference_mode():
        assert build(page()).describe() == expected
