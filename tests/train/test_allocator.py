"""Freed memory stays with a process that trains."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from transformer_kit.train.allocator import keep_freed

FAULTS = """
import resource
import torch
from transformer_kit.train.allocator import keep_freed

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**25)  # 128 MiB, more than the library keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
default = faults()
done = keep_freed(torch.device("cpu"))
faults()
print(done, default, faults())
"""


def _faults(**settings: str) -> tuple[str, int, int]:
    """Whether memory is kept, and how often a page was fetched for a large tensor before and after."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    run = [sys.executable, "-c", FAULTS]
    done, default, kept = subprocess.check_output(run, env=found | settings, text=True).split()
    if int(default) < 1000:
        pytest.skip("the system maps pages so large that fetching them costs nothing")
    return done, int(default), int(kept)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_what_was_freed_is_used_again() -> None:
    done, default, kept = _faults()
    assert done == "True"
    assert kept < default / 10


def test_settings_of_the_user_stay() -> None:
    done, default, kept = _faults(MALLOC_MMAP_THRESHOLD_="65536")
    assert done == "False"
    assert kept > default / 2


def test_a_gpu_has_an_allocator_of_its_own() -> None:
    assert not keep_freed(torch.device("cuda"))
