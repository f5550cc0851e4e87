"""A run that is killed, at any instant, and resumed ends as if nothing had happened: bit for bit."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.train.runs import page, records, train_in_child
from transformer_kit.train import checkpoint

STEPS = {"steps": 24, "batch_size": 2, "gradient_accumulation": 2, "validation": 0.2, "seed": 7}


@pytest.fixture(scope="module")
def whole(corpus: Path, server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    _start(server, corpus, folder).join()
    assert len(records(folder)) == STEPS["steps"]
    return folder


def _page(corpus: Path) -> dict[str, Any]:
    return page(corpus, train=STEPS, checkpoint={"every": 3})


def _start(server: Any, corpus: Path, folder: Path, die_at: int | None = None) -> Any:
    process = server.Process(target=train_in_child, args=(_page(corpus), str(folder), die_at))
    process.start()
    return process


def _same(folder: Path, whole: Path) -> None:
    ours, theirs = records(folder), records(whole)
    assert [r["step"] for r in ours] == list(range(1, STEPS["steps"] + 1))
    assert ours == theirs
    a, b = (load_file(f / "model" / "model.safetensors") for f in (folder, whole))
    assert a.keys() == b.keys()
    assert all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in a)
    last = checkpoint.path_of(Path("checkpoints"), STEPS["steps"])
    ours_state, theirs_state = ((f / last / "optimizer.safetensors").read_bytes() for f in (folder, whole))
    assert ours_state == theirs_state
    assert not list((folder / "checkpoints").glob(".*"))


def test_killed_at_random_steps(server: Any, corpus: Path, whole: Path, tmp_path: Path) -> None:
    chance = random.Random(3)
    folder, killed = tmp_path / "out", 0
    while killed < 6:
        process = _start(server, corpus, folder)
        done = len(records(folder)) if (folder / "metrics.jsonl").exists() else 0
        wanted = done + chance.randint(0, 6)
        while process.is_alive() and (not (folder / "metrics.jsonl").exists() or len(_lines(folder)) < wanted):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        if not process.is_alive():
            break
        process.kill()
        process.join()
        killed += 1
    last = _start(server, corpus, folder)
    last.join()
    assert last.exitcode == 0
    assert killed >= 2
    _same(folder, whole)


def _lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize("syncs", [2, 6, 10, 12])
def test_killed_while_writing_a_checkpoint(server: Any, corpus: Path, whole: Path, tmp_path: Path, syncs: int) -> None:
    """A checkpoint brings three files, a list, and two folders to disk: the kill falls before each of these."""
    folder = tmp_path / "out"
    first = _start(server, corpus, folder, die_at=syncs)
    first.join()
    assert first.exitcode == -9
    assert all(checkpoint.fault(path) is None for _, path in checkpoint.found(folder / "checkpoints"))
    second = _start(server, corpus, folder)
    second.join()
    assert second.exitcode == 0
    _same(folder, whole)
