"""Memory that is freed stays with the process, so that the next step need not fetch it anew.

The C library gives large blocks back to the system, and a training step asks for the same ones again: each spec is then
cleared and mapped once more, which took up to 6 % of a step of 124 million weights on two cores.
"""

import ctypes
import os
import platform

import torch

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Names of settings in the C library (mallopt(3))."""
KEPT = 2**28
"""Bytes of the largest blocks that stay: few are larger, and to keep those, too, would take much more memory."""
THEIRS = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}
"""Variables by which a user chooses what is kept."""


def keep_freed(device: torch.device) -> bool:
    """Keep what this process frees from now on, when computing is to be on `device`; whether that was done.

    Does nothing elsewhere than on a CPU with the GNU C library, and where the user chose what is kept.
    """
    chosen = not THEIRS.isdisjoint(os.environ) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    if device.type != "cpu" or chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, KEPT) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
