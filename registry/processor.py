"""What of this processor decides how products are made."""

import platform
import re
from functools import cache
from pathlib import Path

import torch

CPUINFO = Path("/proc/cpuinfo")
ZEN_5 = 26
"""The first family of AMD's processors that multiply 512 bits at once."""


def is_intel() -> bool:
    """Whether Intel made the processor."""
    told = _told()
    return "GenuineIntel" in told or "Intel(R)" in told or told == "i386"  # as macOS calls them


def amd_family() -> int | None:
    """The number of the processor's family where AMD made it."""
    told = _told()
    made = "AuthenticAMD" in told or "AMD64 Family" in told
    found = re.search(r"cpu family\s*:\s*(\d+)|Family (\d+)", told)
    return int(found[1] or found[2]) if made and found else None


@cache
def onednn_is_faster() -> bool:
    """Whether oneDNN's float32 products are clearly faster here than MKL's, which torch takes.

    MKL uses 512 bits on Intel's processors alone. With two threads of an AMD EPYC that has them, oneDNN's products of
    large matrices reach 440 GFLOP/s and MKL's 210.
    """
    family = amd_family()
    wide = torch.cpu.get_capabilities().get("avx512_f", False)
    libraries = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return libraries and bool(wide) and family is not None and family >= ZEN_5


@cache
def _told() -> str:
    """What the system says of the processor."""
    try:
        return CPUINFO.read_text("utf-8", errors="replace")
    except OSError:
        return platform.processor()
