"""Warmup-stable-decay: constant learning rate with a linear decay at the end (Zhai et al. 2022, arXiv:2106.04560; Hu et
al. 2024, MiniCPM, arXiv:2404.06395).
"""

from registry.contracts import Schedule
from registry.core import register
from registry.options import Count, Rate
from registry.schedule import _shared


@register
class WSD(Schedule):
    """1 after the warm-up, and 1 - (1 - min_scale) t in the last steps, where t goes from 0 to 1 over `decay` of them.

    A checkpoint from before the decay can be resumed with another number of steps.
    """

    class Options(_shared.WarmUp):
        decay: Count
        """Number of decay steps; all steps after the warm-up where there are fewer."""
        min_scale: Rate = 0.0
        """Final learning rate, relative to the peak."""

    def scale(self, step: int, steps: int) -> float:
        warmup, floor = self.options.warmup, self.options.min_scale
        if step < warmup:
            return _shared.warm_up(step, warmup)
        return 1.0 - (1.0 - floor) * _shared.progress(step, steps, max(warmup, steps - self.options.decay))
