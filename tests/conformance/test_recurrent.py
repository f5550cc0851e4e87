"""The contract of decode states holds a recurrence: a mixer whose state does not grow passes every check of mixers."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from registry import core
from registry.context import Context
from registry.contracts import Mixer, Site
from registry.state import Capacity, LayerState
from transformer_kit.testing import check_part


class Remembered(LayerState):
    """What a recurrence remembers after each of its last tokens: (B, rollback + 1, D), the newest last."""

    def __init__(self, history: Tensor) -> None:
        super().__init__(history)
        self.length = self.known = 0
        """Tokens that were read, and how many of the last ones have an entry."""

    @property
    def bytes_per_token(self) -> int:
        return 0

    @property
    def last(self) -> Tensor:
        """After the last token: (B, D)."""
        return self.tensors[0][:, -1]

    def append(self, after: Tensor) -> None:
        """What is remembered after each of T tokens: (B, T, D)."""
        self.tensors = (torch.cat([self.tensors[0], after], dim=1)[:, -self.tensors[0].shape[1] :],)
        self.length += after.shape[1]
        self.known = min(self.known + after.shape[1], self.tensors[0].shape[1])

    def truncate(self, length: int, written: int) -> None:
        dropped = self.length - length
        if dropped >= self.known:
            raise ValueError(f"a recurrence remembers its last {self.known} tokens, and {dropped} are to be dropped")
        self.tensors = (self.tensors[0].roll(dropped, dims=1),)
        self.length, self.known = length, self.known - dropped

    def reset(self, rows: Tensor) -> None:
        self.tensors = (self.tensors[0].masked_fill(rows[:, None, None], 0),)
        if bool(rows.all()):
            self.length = self.known = 0


class Recurrence(Mixer):
    """out(h), with h_t = a h_(t-1) + in(x_t), from zero at the start of each text."""

    def __init__(self, options: Mixer.Options, site: Site) -> None:
        super().__init__(options, site)
        self.into, self.out = nn.Linear(site.d_model, site.d_model), nn.Linear(site.d_model, site.d_model)

    def forward(self, x: Tensor, context: Context, state: Remembered | None = None) -> Tensor:
        h = x.new_zeros(len(x), x.shape[-1]) if state is None else state.last
        begins = (context.positions == 0).expand(x.shape[:2])
        steps = []
        for t, u in enumerate(self.into(x).unbind(1)):
            h = 0.8 * h.masked_fill(begins[:, t, None], 0) + u
            steps.append(h)
        after = torch.stack(steps, dim=1)
        if state is not None:
            state.append(after)
        return self.out(after)

    def state(self, capacity: Capacity) -> Remembered:
        return Remembered(capacity.zeros(capacity.rollback + 1, self.out.in_features))


class Amnesiac(Recurrence):
    """Goes on with the text before."""

    def state(self, capacity: Capacity) -> Remembered:
        made = super().state(capacity)
        made.reset = lambda rows: None  # type: ignore[method-assign]
        return made

    def forward(self, x: Tensor, context: Context, state: Remembered | None = None) -> Tensor:
        if state is not None:
            context = Context(context.start, context.length, context.positions + 1)
        return super().forward(x, context, state)


@pytest.fixture(autouse=True)
def _undone() -> Iterator[None]:
    with core.scope():
        yield


def test_a_recurrence_keeps_the_contract_of_mixers() -> None:
    core.register("test.recurrence")(Recurrence)
    report = check_part("mixer", "test.recurrence")
    assert {"rows_selected", "tokens_forgotten", "rows_begun_again"} <= set(report.checks)


def test_one_that_is_not_reset_is_found() -> None:
    core.register("test.amnesiac")(Amnesiac)
    with pytest.raises(AssertionError, match="rows_begun_again"):
        check_part("mixer", "test.amnesiac")
