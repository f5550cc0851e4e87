"""What is said about a machine: true of this one, and the right advice for others."""

from pathlib import Path
from typing import Any

import pytest
import torch

from transformer_kit import diagnosis, machine

CPU = torch.device("cpu")


@pytest.fixture
def sound() -> dict[str, Any]:
    """A machine about which there is nothing to say."""
    return {
        "threads": {
            "torch": 8,
            "logical cores": 16,
            "physical cores": 8,
            "cores of this process": 16,
            "limit of the container": None,
            "load": 0.1,
        },
        "precision": {
            "bfloat16 in hardware": True,
            "float32 products by": "torch's own choice",
            "kit train chooses": "bfloat16",
        },
        "speed": {"float32": 2e13, "bfloat16": 3e14, "read": 1e12},
        "attention": {"flash": True, "memory-efficient": True, "cudnn": True, "math": True},
        "libraries": {"MKL": True, "oneDNN": True},
        "compiler": {"C++": "/usr/bin/c++", "triton": True},
        "plugins": {"found": [], "problems": []},
    }


def test_a_machine_without_faults_gets_no_advice(sound: dict[str, Any]) -> None:
    assert list(diagnosis._advice(sound, torch.device("cuda"))) == []


@pytest.mark.parametrize(
    ("section", "values", "device", "said"),
    [
        ("threads", {"torch": 16}, "cpu", "16 threads on 8 cores"),
        ("threads", {"torch": 1}, "cpu", "set it to 8"),
        ("threads", {"limit of the container": 2.5}, "cpu", "OMP_NUM_THREADS=2"),
        ("threads", {"load": 9.0}, "cpu", "busy"),
        ("speed", {"bfloat16": 1e11}, "cpu", "200 times slower"),
        ("speed", {}, "cpu", "no accelerator"),
        ("attention", {"flash": False, "memory-efficient": False}, "cuda", "square of the length"),
        ("libraries", {"MKL": False, "oneDNN": False}, "cpu", "neither MKL nor oneDNN"),
        ("compiler", {"C++": None}, "cpu", "install g++"),
        ("compiler", {"triton": False}, "cuda", "without triton"),
        ("precision", {"float32 products by": "oneDNN"}, "cpu", "hardware.compile makes this CPU slower"),
        ("plugins", {"problems": ["acme is broken"]}, "cuda", "acme is broken"),
    ],
)
def test_each_fault_has_its_advice(
    sound: dict[str, Any], section: str, values: dict[str, Any], device: str, said: str
) -> None:
    sound[section] |= values
    assert any(said in sentence for sentence in diagnosis._advice(sound, torch.device(device)))


def test_cores_and_limits_are_read_where_linux_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = [f"processor : {i}\nphysical id : {i // 4}\ncore id : {i % 2}\n" for i in range(8)]
    (tmp_path / "cpuinfo").write_text("\n".join(threads))
    (tmp_path / "meminfo").write_text("MemTotal:  2048 kB\nMemAvailable: 1024 kB\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert diagnosis._physical() == 4
    assert diagnosis._quota() == 1.5
    assert machine.memory() == {"total": 2**21, "free": 2**20, "limit of the container": 2**20}
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert diagnosis._quota() is None
    monkeypatch.setattr(machine, "PROC", tmp_path / "nowhere")
    assert diagnosis._physical() is None


def test_the_plain_way_of_attention_always_works() -> None:
    assert diagnosis._runs(diagnosis.KERNELS["math"], CPU)
    assert not diagnosis._runs(diagnosis.KERNELS["cudnn"], CPU)
