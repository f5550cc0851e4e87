"""Layers that compute anew: the same losses and gradients bit for bit, and less memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.runs import records
from transformer_kit import Spec, build
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import run
from transformer_kit.train.recompute import recompute

ATTENTION = {"type": "attention", "n_heads": 4, "n_kv_heads": 2, "window": 5, "scores": {"dropout": 0.2}}
MOE = {"type": "moe", "n_experts": 4, "expert": "mlp", "router": {"type": "softmax", "k": 2, "balance": 0.1}}


def _model(ffn: Any, **sizes: Any) -> Model:
    block = {"type": "pre_norm", "mixer": ATTENTION, "ffn": ffn}
    sizes = {"vocab_size": 31, "d_model": 16, "max_seq_len": 64, "dropout": 0.1, "position": "rope"} | sizes
    return build(Spec.of({"model": {**sizes, "layers": {"count": 3, "block": block}}})).train()


def _step(model: Model) -> tuple[Tensor, list[Tensor | None]]:
    ids = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(12) // 7).expand_as(ids)
    torch.manual_seed(1)
    total, _ = model.loss(ids, ids.roll(-1, 1), segments=segments)
    total.backward()
    return total.detach(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("ffn", ["gated", MOE], ids=["dense", "experts"])
def test_same_loss_and_gradients_with_dropout_documents_and_experts(ffn: Any) -> None:
    plain, anew = _model(ffn), _model(ffn)
    recompute(anew)
    assert list(plain.state_dict()) == list(anew.state_dict())
    (loss, gradients), (expected, wanted) = _step(anew), _step(plain)
    assert torch.equal(loss, expected)
    for found, right in zip(gradients, wanted, strict=True):
        assert found is not None
        assert right is not None
        assert torch.equal(found, right)


def test_less_is_kept_for_the_backward_pass() -> None:
    kept = []
    for change in (lambda _: None, recompute):
        model = _model("gated", dropout=0.0)
        change(model)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.nbytes) or t, lambda t: t):
            model.loss(torch.zeros(2, 60, dtype=torch.long), torch.zeros(2, 60, dtype=torch.long))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


def test_decoding_and_evaluation_are_plain() -> None:
    plain, anew = _model("gated").eval(), _model("gated").eval()
    recompute(anew)
    assert anew.generate([[1, 2, 3]], max_new_tokens=4) == plain.generate([[1, 2, 3]], max_new_tokens=4)


def test_a_run_takes_it_from_its_page(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    plain = run(spec(train={"steps": 2}), tmp_path / "plain")
    anew = run(spec(train={"steps": 2}, hardware={"recompute": True}), tmp_path / "anew")
    assert anew.loss == plain.loss
    assert [r["loss"] for r in records(tmp_path / "anew")] == [r["loss"] for r in records(tmp_path / "plain")]
