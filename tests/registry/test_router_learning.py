"""What training does about the load of experts: two losses, a correction that no gradient moves, and figures."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from registry import core
from registry.context import Context
from registry.contracts import Site
from transformer_kit import Spec, SpecError, build
from transformer_kit.model.build import assemble
from transformer_kit.model.signature import difference

E, K, D = 4, 2, 4
LOGITS = torch.tensor([[4.0, 3.0, 0.0, -1.0], [5.0, 1.0, 0.0, 0.0], [2.0, 0.0, 1.0, -2.0], [0.0, 0.0, 9.0, 8.0]])
COUNTS = torch.tensor([3.0, 2.0, 2.0, 1.0])
"""How often the four tokens choose each expert."""


def router(name: str = "softmax", **options: Any) -> Any:
    """A router whose logits are the features themselves, in training."""
    part = core.get("router", name)
    built = part(part.Options.model_validate({"top_k": K, **options}), Site(D, n_experts=E))
    with torch.no_grad():
        built.logit.weight.copy_(torch.eye(E))
    return built.train()


def losses(of: Any, segments: Tensor | None = None) -> Tensor:
    context = Context.of(LOGITS[None], segments)
    of(LOGITS, context)
    return torch.stack(context.losses)


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_scores_that_saturate_keep_the_order_of_their_logits(name: str) -> None:
    """A sigmoid of 30 is 1 in float32, as one of 40 is; a softmax gives 0 to all that are far behind."""
    logits = torch.tensor([[30.0, 20.0, 40.0, 25.0], [-300.0, -200.0, 0.0, -250.0]])
    _, chosen = router(name)(logits, Context.of(logits[None], None))
    assert chosen.sort(dim=-1).values.tolist() == [[0, 2], [1, 2]]


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sparse_mixer"])
def test_z_loss_is_the_mean_square_of_the_log_of_the_sum(name: str) -> None:
    expected = 0.5 * LOGITS.exp().sum(dim=-1).log().square().mean()
    torch.testing.assert_close(losses(router(name, learning={"z_loss": 0.5})), expected[None])


@pytest.mark.parametrize("name", ["softmax", "sparse_mixer"])
def test_balance_is_the_share_of_choices_times_that_of_scores(name: str) -> None:
    expected = 0.5 * E * (COUNTS / COUNTS.sum() * LOGITS.softmax(dim=-1).mean(dim=0)).sum()
    torch.testing.assert_close(losses(router(name, learning={"load_balancing_loss": 0.5})), expected[None])


def test_balance_is_one_kth_of_the_loss_of_hugging_face() -> None:
    modeling = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    theirs = modeling.load_balancing_loss_func((LOGITS,), E, K)
    torch.testing.assert_close(losses(router(learning={"load_balancing_loss": K})), theirs[None])


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sparse_mixer"])
def test_many_tokens_are_counted_under_autocast(name: str) -> None:
    x = LOGITS.repeat(1000, 1)
    of = router(name, learning={"load_balancing_loss": 0.5, "z_loss": 0.5})
    context = Context.of(x[None])
    with torch.autocast("cpu", torch.bfloat16):
        weights, _ = of(x, context)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(of._load.counts, COUNTS * 1000)
    torch.testing.assert_close(
        torch.stack(context.losses), losses(router(name, learning={"load_balancing_loss": 0.5, "z_loss": 0.5}))
    )


def test_padding_counts_for_nothing() -> None:
    segments = torch.tensor([[-1, 0, 0, -1]])
    learning = {"load_balancing_loss": 0.5, "z_loss": 0.5}
    alone = router(learning=learning)
    context = Context.of(LOGITS[None, 1:3])
    alone(LOGITS[1:3], context)
    padded = router(learning=learning)
    torch.testing.assert_close(losses(padded, segments), torch.stack(context.losses))
    assert padded.after_step() == alone.after_step()


def test_the_load_is_measured_over_all_passes_of_a_step() -> None:
    one = router(learning={})
    assert one.after_step() == {}
    context = Context.of(LOGITS[None])
    for _ in range(3):
        one(LOGITS, context)
    share = COUNTS / COUNTS.sum()
    entropy = -(share * share.log()).sum() / math.log(E)
    told = one.after_step()
    assert {name: round(float(value), 6) for name, value in told.items()} == {
        "load_max": 1.5,
        "load_min": 0.5,
        "load_entropy": round(float(entropy), 6),
    }
    assert one.after_step() == {}  # it forgets
    assert context.losses == []  # and to be measured costs the loss nothing


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_a_step_moves_the_correction_toward_an_even_load(name: str) -> None:
    one = router(name, bias_correction=True, learning={"bias_update_rate": 0.25})
    for _ in range(2):
        one(LOGITS, Context.of(LOGITS[None]))
    assert one.bias_correction.tolist() == [0.0] * E  # a pass moves nothing
    one.after_step()
    assert one.bias_correction.tolist() == [-0.25, 0.0, 0.0, 0.25]
    assert not one.bias_correction.requires_grad


def test_the_correction_evens_out_a_load_that_is_all_one_experts() -> None:
    one = router("sigmoid", top_k=1, bias_correction=True, learning={"bias_update_rate": 0.01})
    tokens = torch.randn(256, D, generator=torch.Generator().manual_seed(0)) + torch.tensor([6.0, 0.0, 0.0, 0.0])
    loads = []
    for _ in range(150):
        one(tokens, Context.of(tokens[None]))
        loads.append(float(one.after_step()["load_max"]))
    assert loads[0] == E
    assert loads[-1] < 1.2


def test_what_is_frozen_or_only_evaluated_stays() -> None:
    one = router(
        bias_correction=True, learning={"bias_update_rate": 0.25, "load_balancing_loss": 1.0, "z_loss": 1.0}
    ).eval()
    context = Context.of(LOGITS[None])
    one(LOGITS, context)
    assert one.after_step() == {}
    assert context.losses == []
    one.train().requires_grad_(False)
    one(LOGITS, context)
    assert one.after_step()
    assert one.bias_correction.tolist() == [0.0] * E


def test_a_rate_without_a_correction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bias_update_rate needs bias_correction: true"):
        router(learning={"bias_update_rate": 0.25})


def test_a_mixture_inside_of_a_mixture_counts_the_tokens_it_gets() -> None:
    router = {"type": "softmax", "top_k": 2, "learning": {"load_balancing_loss": 0.5}}
    inner = {"type": "moe", "n_experts": 3, "router": router, "expert": {"type": "mlp", "d_ff": 8}}
    block = {
        "type": "pre_norm",
        "mixer": {"type": "attention", "n_heads": 2},
        "ffn": {"type": "moe", "n_experts": 4, "router": {"type": "softmax", "top_k": 1}, "expert": inner},
    }
    sizes = {"vocab_size": 11, "d_model": 8, "max_seq_len": 16}
    model = build(Spec.of({"model": {**sizes, "layers": {"count": 1, "block": block}}}))
    tokens = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(8) // 4).expand(2, 8)
    assert torch.isfinite(model(tokens, tokens, segments=segments).loss)
    seen = [expert.router._load.counts for expert in model.layers[0].ffn.experts]
    assert sum(float(counts.sum()) for counts in seen if counts is not None) == 2 * tokens.numel()


def _page(**options: Any) -> Spec:
    ffn = {"type": "moe", "n_experts": E, "router": {"type": "softmax", "top_k": K, **options}, "expert": "mlp"}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": ffn}
    sizes = {"vocab_size": 11, "d_model": D, "max_seq_len": 8}
    return Spec.of({"model": {**sizes, "layers": {"count": 1, "block": block}}})


def test_learning_is_no_part_of_what_an_export_compares() -> None:
    plain, learned = assemble(_page()), assemble(_page(learning={"load_balancing_loss": 0.5, "z_loss": 0.1}))
    assert difference(plain, learned) is None
    assert difference(plain, assemble(_page(scale=2.0))) is not None


def test_an_unknown_option_of_learning_is_named() -> None:
    with pytest.raises(SpecError, match=r"did you mean 'z_loss'"):
        _page(learning={"zloss": 0.5})
