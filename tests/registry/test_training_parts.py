"""Objective, optimizers, schedules and trackers."""

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from registry import core
from registry.contracts import Optimizer
from transformer_kit.model.loss import cross_entropy
from transformer_kit.model.model import Output

SCHEDULES = ("constant", "linear", "cosine")


def _make(family: str, name: str, *more: Any, **options: Any) -> Any:
    part = core.get(family, name)
    return part(part.Options(**options), *more)


class Table(nn.Module):
    """Losses of next tokens, from a table; remembers the segments it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(11, 11, generator=torch.Generator().manual_seed(0)))
        self.bias = nn.Parameter(torch.ones(11))
        self.segments: Tensor | None = None

    def forward(self, tokens: Tensor, targets: Tensor, *, segments: Tensor | None, skip_logits: bool) -> Output:
        self.segments = segments
        logits = (self.weight + self.bias)[tokens]
        return Output(logits, cross_entropy(logits, targets))


# ------------------------------------------------------------------ causal_lm


def test_the_loss_is_the_sum_over_next_tokens() -> None:
    model, tokens = Table(), torch.tensor([[1, 2, 3], [4, 5, 6]])
    total, count = _make("objective", "causal_lm").loss(model, tokens, None)
    rows = (model.weight + model.bias).log_softmax(-1)
    expected = -sum(rows[a, b] for a, b in ((1, 2), (2, 3), (4, 5), (5, 6)))
    torch.testing.assert_close(total, expected)
    assert count == 4
    assert total.dtype == torch.float32


def test_other_documents_and_padding_are_no_targets() -> None:
    model, tokens = Table(), torch.tensor([[1, 2, 3, 4, 5]])
    segments = torch.tensor([[0, 0, 1, 1, -1]])
    total, count = _make("objective", "causal_lm").loss(model, tokens, segments)
    rows = (model.weight + model.bias).log_softmax(-1)
    torch.testing.assert_close(total, -(rows[1, 2] + rows[3, 4]))
    assert count == 2
    assert model.segments is not None
    assert model.segments.tolist() == [[0, 0, 1, 1]]


def test_no_targets_are_no_loss() -> None:
    total, count = _make("objective", "causal_lm").loss(Table(), torch.zeros(1, 4, dtype=torch.long), -torch.ones(1, 4))
    assert (total.item(), count.item()) == (0.0, 0)


# ------------------------------------------------------------------ optimizers


@pytest.mark.parametrize("name", core.names("optimizer"))
def test_only_matrices_decay_and_frozen_parameters_stay(name: str) -> None:
    model = Table()
    frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    model.register_parameter("frozen", frozen)
    optimizer = _make("optimizer", name, lr=0.1, weight_decay=0.5).make(model)
    model.weight.grad, model.bias.grad = torch.zeros(11, 11), torch.zeros(11)
    before = model.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias.detach(), torch.ones(11))
    assert not any(p is frozen for group in optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize("name", core.names("optimizer"))
def test_everything_frozen_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="no parameter learns"):
        _make("optimizer", name, lr=0.1).make(Table().requires_grad_(False))


@pytest.mark.parametrize("name", core.names("optimizer"))
def test_the_fused_step_is_taken_where_it_exists(name: str) -> None:
    assert _make("optimizer", name, lr=0.1).make(Table()).param_groups[0]["fused"]
    assert not _make("optimizer", name, lr=0.1).make(Table().to("meta")).param_groups[0]["fused"]


def test_adamw_follows_its_formula() -> None:
    model = Table()
    maker: Optimizer = _make("optimizer", "adamw", lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.2)
    optimizer, w = maker.make(model), model.weight.detach().clone()
    m = v = torch.zeros_like(w)
    for step in (1, 2, 3):
        g = torch.full_like(w, 0.5 * step)
        model.weight.grad = g.clone()
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        w = w - 0.1 * 0.2 * w - 0.1 * (m / (1 - 0.8**step)) / ((v / (1 - 0.9**step)).sqrt() + 1e-3)
    torch.testing.assert_close(model.weight.detach(), w)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_its_formula(nesterov: bool) -> None:
    model = Table()
    optimizer = _make("optimizer", "sgd", lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.2).make(model)
    w, m = model.weight.detach().clone(), torch.zeros(11, 11)
    for step in (1, 2, 3):
        model.weight.grad = torch.full_like(w, float(step))
        optimizer.step()
        g = step + 0.2 * w
        m = 0.9 * m + g
        w = w - 0.1 * (g + 0.9 * m if nesterov else m)
    torch.testing.assert_close(model.weight.detach(), w)


def test_options_that_do_not_work_together() -> None:
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0"):
        _make("optimizer", "sgd", lr=0.1, nesterov=True)


# ------------------------------------------------------------------ schedules


@pytest.mark.parametrize("name", SCHEDULES)
@given(warmup=st.integers(0, 60), steps=st.integers(1, 100))
def test_every_schedule_grows_to_one_and_then_never_grows(name: str, warmup: int, steps: int) -> None:
    schedule = _make("schedule", name, warmup=warmup)
    scales = [schedule.scale(step, steps) for step in range(steps + 2)]
    rising, falling = scales[: warmup + 1], scales[warmup:]
    assert all(0 <= scale <= 1 for scale in scales)
    assert all(a < b for a, b in pairwise(rising))
    assert all(a >= b for a, b in pairwise(falling))
    assert not falling[1:] or falling[0] == 1 or warmup >= steps


@pytest.mark.parametrize(("name", "middle"), [("linear", 0.6), ("cosine", 0.6)])
def test_decay_ends_at_min_scale(name: str, middle: float) -> None:
    schedule = _make("schedule", name, warmup=10, min_scale=0.2)
    assert schedule.scale(10, 110) == 1
    assert schedule.scale(60, 110) == pytest.approx(middle)
    assert schedule.scale(110, 110) == pytest.approx(0.2)
    assert schedule.scale(500, 110) == pytest.approx(0.2)


def test_cosine_is_a_cosine() -> None:
    schedule = _make("schedule", "cosine", min_scale=0.0)
    assert schedule.scale(25, 100) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("least", [0.0, 0.1])
def test_wsd_is_that_of_transformers_after_the_warm_up(least: float) -> None:
    from transformers import get_wsd_schedule

    schedule = _make("schedule", "wsd", warmup=5, decay=8, min_scale=least)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_wsd_schedule(optimizer, 5, 8, num_stable_steps=7, min_lr_ratio=least, decay_type="linear")
    for step in range(20):
        if step >= 5:
            assert schedule.scale(step, 20) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert [schedule.scale(step, 8) for step in range(5, 9)] == pytest.approx(
        [1 - (1 - least) * t / 3 for t in range(4)]
    )


def test_warm_up_begins_above_zero() -> None:
    assert [_make("schedule", "constant", warmup=3).scale(s, 9) for s in range(5)] == [0.25, 0.5, 0.75, 1, 1]


# ------------------------------------------------------------------ trackers


@pytest.fixture
def jsonl(tmp_path: Path) -> Iterator[Any]:
    tracker = _make("tracker", "jsonl", tmp_path)
    yield tracker
    tracker.close()


def _steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_jsonl_writes_a_line_at_once_and_rewinds(jsonl: Any, tmp_path: Path) -> None:
    for step in range(1, 5):
        jsonl.log(step, {"loss": 0.1 + step})
        assert _steps(tmp_path)[-1] == step
    jsonl.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    jsonl.rewind(2)
    jsonl.log(3, {"loss": 9.0})
    assert _steps(tmp_path) == [1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_jsonl_keeps_every_bit(jsonl: Any, tmp_path: Path) -> None:
    value = torch.tensor(1 / 3).item()
    jsonl.log(1, {"loss": value})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == value


def test_rewinding_nothing(jsonl: Any, tmp_path: Path) -> None:
    jsonl.rewind(0)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_writes_scalars(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = _make("tracker", "tensorboard", tmp_path)
    for step in (1, 2, 3):
        tracker.log(step, {"loss": float(step)})
    tracker.rewind(1)
    tracker.log(2, {"loss": 20.0})
    tracker.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 20.0)]


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"needs the package tensorboard.*pip install"):
        _make("tracker", "tensorboard", tmp_path)
