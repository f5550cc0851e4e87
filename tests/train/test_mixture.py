"""A mixture of experts in training: its load stands in the metrics where it is asked for, and is evened out."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from registry import core
from tests.train.runs import records
from transformer_kit import Spec, build
from transformer_kit.model.folder import load
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import checkpoint, run
from transformer_kit.train.precision import Placement
from transformer_kit.train.step import Batch, Step

ROUTERS = [f"layers.{i}.ffn.router" for i in range(2)]


@pytest.fixture
def page(spec: Callable[..., RunSpec]) -> Callable[..., RunSpec]:
    """A run whose feed-forwards are mixtures, with options of their routers and changes to the rest."""

    def make(router: dict[str, Any], **changes: Any) -> RunSpec:
        ffn = {"type": "moe", "n_experts": 4, "router": {"type": "sigmoid", "top_k": 2, **router}, "expert": "mlp"}
        block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": ffn}
        return spec(model={"layers": {"count": 2, "block": block}}, **changes)

    return make


def test_the_load_of_each_router_is_in_the_metrics(page: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(page({"learning": {"load_balancing_loss": 0.01}}), tmp_path / "out")
    for line in records(tmp_path / "out"):
        for router in ROUTERS:
            assert 0 <= line[f"{router}.load_min"] <= 1 <= line[f"{router}.load_max"] <= 2  # of four experts two
            assert 0 < line[f"{router}.load_entropy"] <= 1.000001


def test_nothing_is_measured_where_nothing_is_asked(page: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(page({}), tmp_path / "out")
    assert not [name for line in records(tmp_path / "out") for name in line if "load" in name]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_corrections_move_by_their_rate_and_resume(
    page: Callable[..., RunSpec], tmp_path: Path, checkpointing: bool
) -> None:
    options = {
        "bias_correction": True,
        "learning": {"bias_update_rate": 2**-8},
    }  # small beside the differences of scores
    made = page(options, hardware={"activation_checkpointing": checkpointing})
    run(made, tmp_path / "out")
    before, expected = records(tmp_path / "out"), load(tmp_path / "out/model").state_dict()
    corrections = torch.stack([expected[f"{router}.bias_correction"] for router in ROUTERS])
    assert bool((corrections != 0).any())
    assert torch.equal(corrections, (corrections * 2**8).round() / 2**8)
    shutil.rmtree(checkpoint.path_of(tmp_path / "out/checkpoints", 8))
    run(made, tmp_path / "out", resume=True)
    assert records(tmp_path / "out") == before
    again = load(tmp_path / "out/model").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


def test_recomputing_changes_nothing(page: Callable[..., RunSpec], tmp_path: Path) -> None:
    options = {
        "bias_correction": True,
        "learning": {"bias_update_rate": 0.125, "load_balancing_loss": 0.1, "z_loss": 0.1},
    }
    for checkpointing in (False, True):
        run(page(options, hardware={"activation_checkpointing": checkpointing}), tmp_path / str(checkpointing))
    assert records(tmp_path / "True") == records(tmp_path / "False")


def test_nothing_waits_for_the_device_within_a_step() -> None:
    """On the meta device nothing can be read: a step that looked at a figure would fail there."""
    router = {
        "type": "softmax",
        "top_k": 2,
        "bias_correction": True,
        "learning": {"bias_update_rate": 0.1, "load_balancing_loss": 0.1},
    }
    ffn = {"type": "moe", "n_experts": 4, "router": router, "expert": "mlp"}
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": ffn}
    sizes = {"vocab_size": 17, "d_model": 8, "max_seq_len": 8}
    model = build(Spec.of({"model": {**sizes, "layers": {"count": 2, "block": block}}}), device="meta").train()
    part = core.get("objective", "causal_lm")
    meta = Placement(torch.device("meta"), torch.float32)
    step = Step(model, part(part.Options()), torch.optim.SGD(model.parameters(), lr=0.1), meta, 1.0)
    outcome = step([Batch(torch.zeros(2, 9, dtype=torch.long, device="meta"), None)], 1.0)
    assert set(outcome.measured) == {f"{r}.load_{what}" for r in ROUTERS for what in ("max", "min", "entropy")}
