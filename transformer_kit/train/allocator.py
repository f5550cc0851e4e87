"""Keeps freed memory in the process, so that the next training step reuses it.

The C library returns large blocks to the system, and the next step allocates them again. The system then clears and
maps each memory page again, which took up to 6 % of a step with 124 million parameters on two cores.
"""

import ctypes
import os
import platform

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Names of settings in the C library (mallopt(3))."""
KEPT = 2**28
"""Size in bytes of the largest blocks to keep. Few blocks are larger, and keeping those takes much more memory."""
THEIRS = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}
"""Environment variables by which users choose these settings."""


def keep_freed(device: torch.device) -> bool:
    """Keep freed memory in this process for training on `device`; return whether the settings were changed.

    Does nothing without a CPU device and the GNU C library, or where the user chose these settings.
    """
    chosen = not THEIRS.isdisjoint(os.environ) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if device.type != "cpu" or chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, KEPT) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
