"""Which CPU features select the matmul library."""

import platform
import re
from functools import cache
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies large float32 matrices faster than MKL, which torch calls: AMD CPUs with AVX-512.

    MKL uses 512-bit vectors on Intel CPUs alone.
    """
    return _has_both() and _has_avx512() and _vendor() == "amd"


@cache
def prefers_mkl() -> bool:
    """Whether MKL has optimized kernels for this CPU: Intel CPUs with AVX-512."""
    return torch.backends.mkl.is_available() and _has_avx512() and _vendor() == "intel"


def _has_both() -> bool:
    return torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()


def _has_avx512() -> bool:
    return bool(torch.cpu.get_capabilities().get("avx512_f", False))


def _vendor() -> str | None:
    """`amd` or `intel`, from /proc/cpuinfo, Windows or macOS; None for others."""
    told = _told()
    if "GenuineIntel" in told or "Intel(R)" in told or told == "i386":  # the macOS name
        return "intel"
    return "amd" if re.search(r"AuthenticAMD|AMD64 Family", told) else None


def _told() -> str:
    """The system's description of the CPU."""
    try:
        return CPUINFO.read_text("utf-8", errors="replace")
    except OSError:
        return platform.processor()
