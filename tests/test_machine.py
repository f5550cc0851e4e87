"""What the machine measures of itself."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from transformer_kit import machine, read
from transformer_kit.cost.card import card
from transformer_kit.diagnosis import examine


def test_a_measured_peak_is_plausible_and_quick() -> None:
    begin = time.perf_counter()
    peak = max(machine.matmul_peak("cpu", torch.float32, budget=0.05) for _ in range(5))  # a busy machine is slow
    assert 1e8 < peak < 1e14
    assert time.perf_counter() - begin < 5


def test_a_slow_type_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def slow(x: torch.Tensor, _: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        time.sleep(0.002 * (len(x) / 64) ** 3)
        return out

    monkeypatch.setattr(torch, "mm", slow)
    peak = machine.matmul_peak("cpu", torch.bfloat16, budget=0.1)
    assert max(sizes) <= 128
    assert peak <= 2 * 64**3 / 0.002


def test_bandwidth_is_plausible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "READ", 2**24)
    assert 1e8 < machine.read_bandwidth("cpu") < 1e14


@pytest.mark.parametrize("fast", ["mv", "sum"])
def test_bandwidth_is_that_of_the_faster_way_to_read(monkeypatch: pytest.MonkeyPatch, fast: str) -> None:
    monkeypatch.setattr(machine, "READ", 2**24)
    monkeypatch.setattr(machine, "_fastest", lambda read, *_: 0.5 if fast in repr(read) else 2.0)
    assert machine.read_bandwidth("cpu") == 2**24 / 0.5


def test_the_name_says_processor_and_threads() -> None:
    assert machine.name().endswith(("thread", "threads"))
    assert len(machine.name().split(",")[0]) > 2


def test_free_memory_is_what_can_be_had_swapping_included(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.free_memory(cpu) is None
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemAvailable: 1024 kB\nSwapFree: 512 kB\n")
    assert machine.free_memory(cpu) == 1536 * 1024
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine.free_memory(cpu) == 2**20
    assert machine.free_memory(torch.device("meta")) is None


def test_reading_takes_a_part_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda _: 2**24)
    monkeypatch.setattr(machine, "_fastest", lambda *_: 1.0)
    assert machine.read_bandwidth("cpu") == 2**22


def test_who_else_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: threads + 2)
    assert machine.busy(cpu) is None  # where the system does not tell
    own = tmp_path / "self/task"
    for name, state in (("1", "R"), ("2", "R"), ("3", "S")):
        (own / name).mkdir(parents=True)
        (own / name / "stat").write_text(f"{name} (a (b) R) {state} 0 0")
    for running, expected in ((2, None), (4, None), (5, f"3 threads of other programs ran on {threads + 2} cores")):
        (tmp_path / "stat").write_text(f"cpu  1 2 3\nprocs_running {running}\nprocs_blocked 0\n")
        assert machine.busy(cpu) == expected
    assert machine.busy(torch.device("cuda")) is None


def test_measuring_leaves_global_random_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "READ", 2**24)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    examine({"found": [], "problems": []})
    card(read("tutorial", ["model.d_model=32", "model.layers.count=1"]))
    after = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
