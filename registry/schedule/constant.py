"""Constant learning rate, after a warm-up (Goyal et al. 2017, arXiv:1706.02677)."""

from registry.contracts import Schedule
from registry.core import register
from registry.schedule import _shared


@register
class Constant(Schedule):
    """min(1, (step + 1) / (warmup + 1))."""

    class Options(_shared.WarmUp):
        """The warm-up."""

    def scale(self, step: int, steps: int) -> float:
        return _shared.warm_up(step, self.options.warmup)
