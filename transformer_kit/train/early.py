"""Steps in the backward pass: each parameter learns once its gradient is whole, which is then dropped.

Gradients are never all in memory, so a step takes less by nearly their size (Lv et al. 2023, arXiv:2306.09782). What is
done with a parameter in a backward pass is done when its gradient is whole, so nothing sees a weight that has moved.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer


class EarlySteps:
    """Lets an optimizer step in a backward pass."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._norms: list[Tensor] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """Inside, a backward pass takes the optimizer's step, and leaves no gradients."""
        learning = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        handles = [p.register_post_accumulate_grad_hook(self._take) for p in learning]
        self._norms.clear()
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def norm(self) -> Tensor:
        """Norm of the last pass's gradient, float32 ()."""
        return torch.stack(self._norms).norm() if self._norms else torch.zeros(())

    def _take(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._norms.append(torch.linalg.vector_norm(parameter.grad, dtype=torch.float32))
        self.optimizer.step()  # of the one that has a gradient
        parameter.grad = None
