"""Linear decay of the learning rate, after a warm-up (Devlin et al. 2018, arXiv:1810.04805)."""

from registry.contracts import Schedule
from registry.core import register
from registry.options import Rate
from registry.schedule import _shared


@register
class Linear(Schedule):
    """1 - (1 - min_scale) t, where t goes from 0 after the warm-up to 1 at the end."""

    class Options(_shared.WarmUp):
        min_scale: Rate = 0.0
        """Final learning rate, relative to the peak."""

    def scale(self, step: int, steps: int) -> float:
        warmup, floor = self.options.warmup, self.options.min_scale
        if step < warmup:
            return _shared.warm_up(step, warmup)
        return 1.0 - (1.0 - floor) * _shared.progress(step, steps, warmup)
