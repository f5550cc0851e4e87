"""What this machine can do: its name, its arithmetic, its memory."""

import time
from pathlib import Path

import torch


def name() -> str:
    text = Path("/proc/cpuinfo").read_text()
    return next((l.split(":", 1)[1].strip() for l in text.splitlines() if l.startswith("model name")), "?")


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    best = 0.0
    for n in (512, 1024, 2048):
        x = torch.ones(n, n, device=device, dtype=dtype)
        for _ in range(5):
            s = time.perf_counter()
            x @ x
            best = max(best, 2 * n**3 / (time.perf_counter() - s))
    return best


def read_bandwidth(device: torch.device) -> float:
    x = torch.ones(2**26, device=device)
    best = 0.0
    for _ in range(6):
        s = time.perf_counter()
        x.sum()
        best = max(best, x.nbytes / (time.perf_counter() - s))
    return best
