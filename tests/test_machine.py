"""What the machine measures of itself."""

import time

import pytest
import torch

from transformer_kit import machine


def test_a_measured_peak_is_plausible_and_quick() -> None:
    begin = time.perf_counter()
    peak = machine.matmul_peak("cpu", torch.float32, budget=0.05)
    assert 1e6 < peak < 1e14  # a busy machine is slow
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


def test_the_name_says_processor_and_threads() -> None:
    assert machine.name().endswith(("thread", "threads"))
    assert len(machine.name().split(",")[0]) > 2
