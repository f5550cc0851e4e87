"""Strong weights: by name, so that models of different parts agree in what they share; saved buffers among them."""

import torch
from torch import nn

from transformer_kit.testing import strong_init


class Holder(nn.Module):
    """A table, a matrix, a vector, a saved buffer and one that is not."""

    def __init__(self, rows: int = 5, extra: bool = False) -> None:
        super().__init__()
        self.extra = nn.Linear(3, 3) if extra else None
        self.table = nn.Embedding(rows, 4)
        self.linear = nn.Linear(4, 3)
        self.register_buffer("state", torch.zeros(6))
        self.register_buffer("angles", torch.zeros(6), persistent=False)


def filled(seed: int = 0, **options: int) -> dict[str, torch.Tensor]:
    holder = Holder(**options)
    strong_init(holder, seed)
    assert not holder.angles.any(), "what is not saved follows from the options, and stays"
    return holder.state_dict()


def test_nothing_is_near_zero_and_signs_are_mixed() -> None:
    found = filled()
    for name in ("state", "linear.bias"):
        assert found[name].abs().min() > 0.05, name
    assert 0 < int((found["state"] > 0).sum()) < 6


def test_what_two_modules_share_is_the_same() -> None:
    few, many = filled(), filled(rows=9, extra=True)
    for name in ("linear.weight", "linear.bias", "state"):
        assert torch.equal(few[name], many[name]), name
    assert torch.equal(few["table.weight"], many["table.weight"][:5])


def test_seeds_and_names_make_a_difference() -> None:
    found, other = filled(extra=True), filled(seed=1)
    for name in ("state", "linear.bias", "table.weight"):
        assert not torch.equal(found[name], other[name]), name
    assert not torch.equal(found["extra.bias"], found["linear.bias"])
