"""Freed memory stays with a process that trains."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.train.runs import page
from transformer_kit.train.allocator import keep_freed

FAULTS = """
import resource
import torch
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import run

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**25)  # 128 MiB, more than the library keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
default = faults()
run(RunSpec.of({page!r}), {out!r})
print(default, min(faults() for _ in range(5)))  # a small tensor may have taken a part of the block
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")


def _faults(corpus: Path, folder: Path, **settings: str) -> tuple[int, int]:
    """How often a spec was fetched for a large tensor, before a run and after."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    program = FAULTS.replace("{page!r}", repr(page(corpus))).replace("{out!r}", repr(str(folder / "out")))
    said = subprocess.check_output([sys.executable, "-c", program], env=found | settings, text=True)
    default, kept = map(int, said.split())
    if default < 1000:
        pytest.skip("the system maps specs so large that fetching them costs nothing")
    return default, kept


@glibc
@pytest.mark.parametrize("settings", [{}, {"MALLOC_ARENA_MAX": "2"}], ids=["plain", "another setting"])
def test_after_a_run_what_was_freed_is_used_again(corpus: Path, tmp_path: Path, settings: dict[str, str]) -> None:
    default, kept = _faults(corpus, tmp_path, **settings)
    assert kept < default / 10


@pytest.mark.parametrize(
    "settings", [{"MALLOC_MMAP_THRESHOLD_": "65536"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}], ids=str
)
def test_what_the_user_chose_stays(corpus: Path, tmp_path: Path, settings: dict[str, str]) -> None:
    default, kept = _faults(corpus, tmp_path, **settings)
    assert kept > default / 2


def test_a_gpu_has_an_allocator_of_its_own() -> None:
    assert not keep_freed(torch.device("cuda"))
