"""Cosine decay of the learning rate, after a warm-up (Loshchilov and Hutter 2017, arXiv:1608.03983)."""

import math

from registry.contracts import Schedule
from registry.core import register
from registry.options import Rate
from registry.schedule import _shared


@register
class Cosine(Schedule):
    """min_scale + (1 - min_scale) (1 + cos(pi t)) / 2, where t goes from 0 after the warm-up to 1 at the end."""

    class Options(_shared.WarmUp):
        min_scale: Rate = 0.1
        """Final learning rate, relative to the peak."""

    def scale(self, step: int, steps: int) -> float:
        warmup, floor = self.options.warmup, self.options.min_scale
        if step < warmup:
            return _shared.warm_up(step, warmup)
        wave = (1.0 + math.cos(math.pi * _shared.progress(step, steps, warmup))) / 2
        return floor + (1.0 - floor) * wave
