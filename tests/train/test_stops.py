"""Runs that end early: signals, numbers that are not finite, disks that are full."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from registry import core
from registry.contracts import Optimizer
from tests.train.runs import Recorder, page, records, train_on_small_disk
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import Diverged, OutputError, checkpoint, run
from transformer_kit.train.signals import Interrupts


class Interrupting(Recorder):
    """Sends this process a signal when a step is reached."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__()
        self.at = at
        self.number = number

    def checkpoint(self, step: int, folder: Path) -> None:
        super().checkpoint(step, folder)
        if step == self.at:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on(spec: Callable[..., RunSpec], tmp_path: Path, number: int) -> None:
    run(spec(), tmp_path / "whole")
    before = signal.getsignal(number)
    report = Interrupting(3, number)
    result = run(spec(), tmp_path / "out", report=report)
    assert result.interrupted == signal.Signals(number).name
    assert 3 <= result.step < 8
    assert report.checkpoints[-1] == result.step
    assert signal.getsignal(number) is before
    assert (tmp_path / "out/model/model.safetensors").exists()
    assert run(spec(), tmp_path / "out", resume=True).interrupted is None
    assert records(tmp_path / "out") == records(tmp_path / "whole")


def test_a_second_signal_stops_at_once() -> None:
    def impatient() -> None:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.asked == "SIGINT"
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        impatient()


def test_other_threads_train_without_handlers() -> None:
    seen: list[object] = []

    def work() -> None:
        with Interrupts() as interrupts:
            seen.append(interrupts.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def test_ctrl_c_in_a_process_of_its_own(corpus: Path, tmp_path: Path) -> None:
    """The real thing: a fresh interpreter, a signal from outside, an orderly end."""
    out = tmp_path / "out"
    settings = page(corpus, train={"steps": 100_000, "gradient_accumulation": 1}, evaluate={"every": 50_000})
    program = (
        "from transformer_kit.train import run; from transformer_kit.spec.schema import RunSpec;"
        f"r = run(RunSpec.of({settings!r}), {str(out)!r}); print(r.interrupted, r.step)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        while not (out / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    name, step = said.split()
    assert (process.returncode, name) == (0, "SIGINT")
    assert checkpoint.found(out / "checkpoints")[0][0] == int(step) == records(out)[-1]["step"]


# ------------------------------------------------------------------ not finite


def test_a_loss_that_is_not_finite_stops_and_spares_the_checkpoints(
    spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    wild = {"type": "sgd", "lr": 1e12}
    with pytest.raises(Diverged, match=r"became (nan|inf) at step \d+; there is no checkpoint yet"):
        run(spec(optimizer=wild, train={"max_grad_norm": None}, schedule={"type": "constant"}), tmp_path / "a")
    assert not checkpoint.found(tmp_path / "a/checkpoints")
    assert not (tmp_path / "a/model").exists()
    # With a warm-up the first steps are sane, and their checkpoint stays the newest.
    calm_at_first = {"type": "sgd", "lr": 1e11}
    with pytest.raises(Diverged, match=r"the last good checkpoint is .*--resume") as caught:
        run(
            spec(
                optimizer=calm_at_first,
                train={"max_grad_norm": None, "steps": 20},
                schedule={"type": "constant", "warmup": 1_000_000_000},
                checkpoint={"every": 1, "keep": 1},
            ),
            tmp_path / "b",
        )
    ((_, newest),) = checkpoint.found(tmp_path / "b/checkpoints")
    assert str(newest) in str(caught.value)
    assert checkpoint.fault(newest) is None
    assert all(t.isfinite().all() for t in load_file(newest / "model.safetensors").values())
    assert "NaN" not in (tmp_path / "b/metrics.jsonl").read_text()


def test_weights_broken_by_a_finite_step_are_not_saved(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    """The loss belongs to the weights before the step: only looking at the weights tells."""
    with core.scope():

        @core.register("test.breaker")
        class Breaker(Optimizer):
            def make(self, model: torch.nn.Module) -> torch.optim.Optimizer:
                optimizer = torch.optim.SGD(model.parameters(), lr=self.options.lr)
                optimizer.register_step_post_hook(lambda *_: model.embedding.weight.data.fill_(float("inf")))
                return optimizer

        wanted = spec(optimizer={"type": "test.breaker", "lr": 0.1}, train={"steps": 1, "validation": 0.0})
        with pytest.raises(Diverged, match="weights are no longer finite after step 1"):
            run(wanted, tmp_path / "out")
    assert not checkpoint.found(tmp_path / "out/checkpoints")


# ------------------------------------------------------------------ the disk


def test_a_full_disk_spares_the_checkpoints(server: Any, corpus: Path, tmp_path: Path) -> None:
    """A limit on the size of files makes the write of the larger optimizer state fail half way."""
    out = tmp_path / "out"
    first = page(corpus)
    run(RunSpec.of({**first, "checkpoint": {"every": 3}}), out)
    good = checkpoint.path_of(out / "checkpoints", 6)
    for _, path in checkpoint.found(out / "checkpoints"):
        if path != good:
            (path / checkpoint.MANIFEST).unlink()
    size = (good / "optimizer.safetensors").stat().st_size
    process = server.Process(target=train_on_small_disk, args=(first, str(out), size - 1000))
    process.start()
    process.join()
    said = Path(f"{out}.error").read_text()
    assert said.startswith("OutputError")
    assert os.strerror(errno.EFBIG) in said
    assert str(good) in said
    assert checkpoint.fault(good) is None
    assert not list((out / "checkpoints").glob(".*"))


def test_metrics_on_a_full_disk(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    report = Recorder()
    report.begin = lambda plan: (tmp_path / "out/metrics.jsonl").symlink_to("/dev/full")  # type: ignore[method-assign]
    with pytest.raises(OutputError, match=r"metrics.jsonl: cannot be written: the disk is full"):
        run(spec(), tmp_path / "out", report=report)


def test_the_random_numbers_of_an_evaluation_leave_no_trace(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    often = spec(evaluate={"every": 1}, sample={"every": 1, "prompt": "the", "max_new_tokens": 4})
    run(often, tmp_path / "often")
    run(spec(train={"validation": 0.2}), tmp_path / "seldom")
    a, b = ([r["loss"] for r in records(tmp_path / name)] for name in ("often", "seldom"))
    assert a == b
