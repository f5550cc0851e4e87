"""The arithmetic of one step: accumulation, clipping, and a schedule's scale."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from registry import core
from registry.contracts import Objective
from transformer_kit.model.build import build
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train.assemble import architecture
from transformer_kit.train.precision import Placement
from transformer_kit.train.step import Batch, Outcome, Step
from transformer_kit.transform.activation_checkpointing import activation_checkpointing
from transformer_kit.transform.optimizer_in_backward import OptimizerInBackward
from transformer_kit.transform.pipeline import transformed

CPU = Placement(torch.device("cpu"), torch.float32)


class Wasteful(torch.nn.Module):
    """A model whose gradients are enormous."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))


class Steep(Objective):
    """1000 times the sum of the weights, over one target."""

    def loss(self, model: torch.nn.Module, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        return 1000 * model.weight.sum(), torch.tensor(1)


def _causal_lm() -> Objective:
    part = core.get("objective", "causal_lm")
    return part(part.Options())


def _ragged(rows: int) -> Batch:
    """Rows with very different numbers of valid targets: the others are padding."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(257, (rows, 13), generator=generator)
    segments = torch.zeros(rows, 13, dtype=torch.long)
    for row, valid in enumerate([12, 1, 4, 9][:rows]):
        segments[row, valid + 1 :] = -1
    return Batch(tokens, segments)


def _one_step(spec: RunSpec, batches: list[Batch], clip: float | None) -> tuple[Outcome, dict[str, Tensor]]:
    model = build(architecture(spec), seed=3).eval()
    step = Step(model, _causal_lm(), torch.optim.SGD(model.parameters(), lr=0.1), CPU, clip)
    return step(iter(batches), 1.0), {name: p.detach() for name, p in model.named_parameters()}


def _each_row(batch: Batch) -> Iterator[Batch]:
    for row in range(len(batch.tokens)):
        yield Batch(batch.tokens[row : row + 1], batch.segments[row : row + 1])


@pytest.mark.parametrize("clip", [None, 0.05])
def test_accumulation_equals_one_batch(spec: Callable[..., RunSpec], clip: float | None) -> None:
    whole = _ragged(4)
    one, expected = _one_step(spec(), [whole], clip)
    many, weights = _one_step(spec(), list(_each_row(whole)), clip)
    torch.testing.assert_close(many.loss, one.loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(many.grad_norm, one.grad_norm, rtol=1e-5, atol=0)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-7)


def test_the_loss_is_not_the_mean_of_means(spec: Callable[..., RunSpec]) -> None:
    rows = list(_each_row(_ragged(4)))
    together, _ = _one_step(spec(), rows, None)
    means = [_one_step(spec(), [row], None)[0].loss for row in rows]
    assert abs(torch.stack(means).mean() - together.loss) > 1e-3


def test_a_batch_without_targets_changes_nothing(spec: Callable[..., RunSpec]) -> None:
    nobody = Batch(torch.zeros(2, 5, dtype=torch.long), torch.full((2, 5), -1))
    outcome, weights = _one_step(spec(), [nobody], 1.0)
    before = {name: p.detach() for name, p in build(architecture(spec()), seed=3).named_parameters()}
    assert outcome.loss == 0
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())


def test_clipping_bounds_the_step_and_reports_the_norm_before() -> None:
    model = Wasteful()
    step = Step(model, Steep(None), torch.optim.SGD(model.parameters(), lr=1.0), CPU, max_grad_norm=0.5)
    outcome = step([Batch(torch.zeros(1, 2), None)], 1.0)
    torch.testing.assert_close(outcome.grad_norm, torch.tensor(1000 * 3**0.5))
    torch.testing.assert_close((model.weight.detach() - 1).norm(), torch.tensor(0.5))


def test_scale_applies_to_each_group_and_to_a_resumed_optimizer() -> None:
    model = Wasteful()
    other = torch.nn.Parameter(torch.ones(1))
    groups = [{"params": [model.weight], "lr": 0.5}, {"params": [other], "lr": 0.125}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for _ in range(2):  # a second Step finds rates that are scaled already
        step = Step(model, Steep(None), optimizer, CPU, None)
        step([Batch(torch.zeros(1, 2), None)], 0.25)
        assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.03125]
        assert step.lr(0.25) == 0.125


@pytest.mark.parametrize("again", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "own head"])
def test_steps_in_the_backward_pass_are_the_same_steps(spec: Callable[..., RunSpec], tied: bool, again: bool) -> None:
    page, batch = spec(model={"head": {"type": "lm", "tied": tied}}), _ragged(4)
    ends = []
    for in_backward in (False, True):
        model = build(architecture(page), seed=3)
        torch.manual_seed(0)  # of dropout
        if again:
            activation_checkpointing(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        transform = OptimizerInBackward(optimizer) if in_backward else None
        model = transformed(model, optimizer_in_backward=transform)
        step = Step(model, _causal_lm(), optimizer, CPU, None, transform)
        outcomes = [step([batch], scale) for scale in (1.0, 0.5, 0.25)]
        ends.append((outcomes, dict(model.named_parameters())))
    (after, expected), (within, found) = ends
    for a, b in zip(after, within, strict=True):
        torch.testing.assert_close(b.loss, a.loss)
        torch.testing.assert_close(b.grad_norm, a.grad_norm)
    for name, weight in found.items():
        assert weight.grad is None
        torch.testing.assert_close(weight, expected[name])


def test_after_its_removal_a_backward_pass_is_a_plain_one(spec: Callable[..., RunSpec]) -> None:
    model = build(architecture(spec()), seed=3)
    transform = OptimizerInBackward(torch.optim.SGD(model.parameters(), lr=0.1))
    Step(transform(model), _causal_lm(), transform.optimizer, CPU, None, transform)([_ragged(2)], 1.0)
    transform.remove()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(_ragged(2).tokens).logits.sum().backward()
    assert all(p.grad is not None and torch.equal(p.detach(), before[name]) for name, p in model.named_parameters())
