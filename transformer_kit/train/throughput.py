"""Speed of a run: FLOPs of a token, the machine's peak FLOP/s, tokens per second, MFU."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from registry.contracts import Objective
from transformer_kit.cost.count import kinds, usage
from transformer_kit.cost.meter import Work
from transformer_kit.machine import busy, matmul_peak
from transformer_kit.model.model import Model
from transformer_kit.train.precision import Placement

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "V100": 125e12,
    "4090": 165e12,
    "3090": 71e12,
}
"""Dense bfloat16 (V100: float16) FLOP/s by a part of the device's name, from vendors' data sheets."""
REMEDY = "MFU may be too high; set hardware.peak_tflops to what the machine can do"


def flops_per_token(twin: Model, objective: Objective, seq_len: int, *, document_mask: bool = False) -> float:
    """FLOPs of a forward and backward pass for each token, counted on `twin`, the model on the meta device.

    Equal to the cost report's FLOPs, without recomputed activations.
    """
    return (
        usage(twin, kinds(twin), Work(objective, batch=1, seq=seq_len, document_mask=document_mask)).whole().flops
        / seq_len
    )


def peak_flops(placement: Placement, named: float | None) -> tuple[float, str | None]:
    """The peak FLOP/s for MFU: `named` (in TFLOP/s), else the data sheet's, else a measurement.

    Returns it with a note about its accuracy.
    """
    if named:
        return named * 1e12, None
    if placement.device.type == "cuda" and placement.dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(placement.device)
        known = next((peak for part, peak in PEAKS.items() if part in name), None)
        if known is not None:
            return known, None
    others = busy(placement.device)
    # A slow or busy machine ends this early, so that it does not delay the first step.
    peak = matmul_peak(placement.device, placement.dtype, budget=0.1)
    return peak, None if others is None else f"{others} while the peak for MFU was measured; {REMEDY}"


class Meter:
    """Counts tokens and training time, without the time inside `pause`."""

    def __init__(self, tokens_per_step: int, flops_per_token: float, peak: float) -> None:
        self.tokens_per_step = tokens_per_step
        self.seconds = 0.0
        """Seconds of training so far."""
        self.flops_per_token = flops_per_token
        self.peak = peak
        self._since = time.perf_counter()
        self._window = 0.0

    def begin(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def lap(self, steps: int) -> float:
        """Tokens per second over the last `steps` steps."""
        self._take()
        window, self._window = self._window, 0.0
        self.seconds += window
        return steps * self.tokens_per_step / max(window, 1e-9)

    def mfu(self, tokens_per_second: float) -> float:
        """Model FLOPs utilization at `tokens_per_second`; 0 without a peak."""
        return tokens_per_second * self.flops_per_token / self.peak if self.peak else 0.0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Exclude the time inside."""
        self._take()
        try:
            yield
        finally:
            self._since = time.perf_counter()

    def _take(self) -> None:
        now = time.perf_counter()
        self._window += now - self._since
        self._since = now
