"""`OptimizerInBackward`: steps in the backward pass are those of an optimizer after it."""

import torch
from torch import Tensor, nn

from transformer_kit.transform.optimizer_in_backward import OptimizerInBackward


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def _loss(model: nn.Module) -> Tensor:
    return model(torch.linspace(-1, 1, 12).view(3, 4)).square().sum()


def test_a_backward_pass_takes_the_step_and_leaves_no_gradient() -> None:
    plain, model = _model(), _model()
    optimizers = [torch.optim.AdamW(each.parameters(), lr=0.1) for each in (plain, model)]
    transform = OptimizerInBackward(optimizers[1])
    assert transform(model) is model
    for _ in range(3):
        optimizers[0].zero_grad()
        _loss(plain).backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
        optimizers[0].step()
        _loss(model).backward()
        torch.testing.assert_close(transform.norm(), norm)
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            assert ours.grad is None
            torch.testing.assert_close(ours, theirs)


def test_frozen_parameters_stay_and_removal_undoes_it() -> None:
    model = _model()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    transform = OptimizerInBackward(torch.optim.SGD(model.parameters(), lr=0.1))
    _loss(transform(model)).backward()
    assert torch.equal(model[0].weight, before)
    transform.remove()
    moved = model[2].weight.clone()
    _loss(model).backward()
    assert torch.equal(model[2].weight, moved)
    assert model[2].weight.grad is not None
