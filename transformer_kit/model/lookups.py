"""A table whose rows are looked up and that the head reads as well has two gradients, of which one is never whole here.

The head's is of all rows, that of looking rows up of no more than there are tokens. Torch makes the second as large as
the first, mostly zeros, to add them. Here it stays sparse where there are fewer tokens than rows, and is added into the
first.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

DEVICES = ("cpu", "cuda", "meta")
"""Where a sparse gradient can be added to a whole one."""
USUAL = {"padding_idx": None, "max_norm": None, "scale_grad_by_freq": False, "sparse": False}
"""Settings of a lookup that does nothing else."""


class Lookups(TorchFunctionMode):
    """Inside, rows of `table` are looked up with a sparse gradient; for whatever else reads it there is `read`.

    What comes back to `read` must be the caller's own: the rows' gradient is added to it in its place.
    """

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = self.read = self.rows = table
        self.is_read = False
        """Whether a gradient will come back to `read`, as far as the caller knows."""
        if torch.is_grad_enabled() and table.requires_grad and table.device.type in DEVICES:
            self.read, self.rows = _Both.apply(table)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding and self._is_plain(*args, **kwargs):
            return _Rows.apply(self, args[0], self.rows)
        return func(*args, **kwargs)

    def _is_plain(self, ids: Tensor, weight: Tensor, **settings: Any) -> bool:
        """Whether rows of the table are looked up, and nothing else is done with them or it."""
        known = weight is self.table and self.rows is not self.table
        return known and all(settings.get(name, usual) == usual for name, usual in USUAL.items())


class _Both(torch.autograd.Function):
    """The table twice: once to be read, once to look rows up."""

    @staticmethod
    def forward(ctx: Any, table: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return table.detach(), table.detach()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> Tensor | None:
        whole, rows = slopes
        if whole is None or rows is None:
            return rows if whole is None else whole
        return whole.add_(rows)


class _Rows(torch.autograd.Function):
    """table[ids]: ids (...), table (V, D) -> (..., D)."""

    @staticmethod
    def forward(ctx: Any, lookups: Lookups, ids: Tensor, table: Tensor) -> Tensor:
        ctx.lookups, ctx.shape = lookups, table.shape
        ctx.save_for_backward(ids)
        return F.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, None, Tensor]:
        ids = ctx.saved_tensors[0].flatten()
        slope = slopes[0].reshape(len(ids), -1)
        few = ctx.lookups.is_read and len(ids) < ctx.shape[0]
        return None, None, sparse(ids, slope, ctx.shape) if few else _whole(ids, slope, ctx.shape[0])


def sparse(ids: Tensor, slope: Tensor, shape: torch.Size) -> Tensor:
    """Gradient of a table of `shape` (V, D) by its rows `ids` (N,), for `slope` (N, D): each row is in it once.

    It has N rows, and those that are left over are zeros for row 0, so that a device is not asked how many there are.
    As no row is there twice, the result does not depend on the order in which a device adds them.
    """
    ids = ids.long()
    if slope.is_meta:  # knows no sparse tensors: one as large, in its stead
        return torch.empty_like(slope).as_strided(shape, (0, 1))
    order = ids.argsort(stable=True)
    begins = torch.zeros_like(ids)
    begins[1:] = ids[order].diff() != 0
    place = torch.empty_like(ids).scatter_(0, order, begins.cumsum(0))  # of each id's row
    sums = _whole(place, slope, len(ids))
    rows = torch.zeros_like(ids).scatter_(0, place, ids)
    return torch.sparse_coo_tensor(rows[None], sums, shape, check_invariants=False)


def _whole(ids: Tensor, slope: Tensor, rows: int) -> Tensor:
    """The same of a table of so many `rows`, as torch makes it: (rows, D)."""
    made: Tensor = torch.ops.aten.embedding_dense_backward(slope, ids, rows, -1, False)
    return made
