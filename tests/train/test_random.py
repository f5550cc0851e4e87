"""What a step draws depends on seed, step and micro-batch alone: nothing that happens between steps changes it."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from registry import core
from registry.context import Context
from registry.contracts import FFN, Objective, Site
from tests.train.runs import Recorder, page, records, train_in_child
from transformer_kit import seeds
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import run, throughput

WAYS: dict[str, dict[str, Any]] = {
    "accumulated": {"train": {"steps": 5, "gradient_accumulation": 3}},
    "optimizer in the backward pass": {
        "train": {"steps": 5, "gradient_accumulation": 1, "max_grad_norm": None},
        "hardware": {"optimizer_in_backward": True},
    },
    "recomputed": {"train": {"steps": 5}, "hardware": {"activation_checkpointing": True}},
    "compiled": {"train": {"steps": 5}, "hardware": {"compile": True}},
}


class Drawing(Recorder):
    """Draws global random numbers whenever the run says something, and stops it, as a crash would, at some steps."""

    def __init__(self, *stops: int) -> None:
        super().__init__()
        self.stops = stops

    def begin(self, plan: Any) -> None:
        super().begin(plan)
        draw()

    def progress(self, progress: Any) -> None:
        super().progress(progress)
        draw()

    def evaluation(self, step: int, loss: float, bits_per_byte: float) -> None:
        super().evaluation(step, loss, bits_per_byte)
        draw()

    def checkpoint(self, step: int, folder: Path) -> None:
        super().checkpoint(step, folder)
        draw()
        if step in self.stops:
            raise InterruptedError


def draw() -> tuple[float, float, float]:
    """A number of each global generator."""
    return float(torch.rand(())), float(np.random.random()), random.random()


@pytest.fixture
def _noisy() -> Iterator[None]:
    """A feed-forward of a plugin that draws from every global generator."""
    with core.scope():

        @core.register("test.noisy")
        class Noisy(FFN):
            def __init__(self, options: FFN.Options, site: Site) -> None:
                super().__init__(options, site)
                self.up = nn.Linear(site.d_model, site.d_model)

            def forward(self, x: Tensor, context: Context) -> Tensor:
                return self.up(x) * (1 + sum(draw())) if self.training else self.up(x)

        yield


def ended(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model/model.safetensors")


def equal(a: Path, b: Path, *keys: str) -> None:
    """The same losses, and the same weights, to the last bit."""
    ours, theirs = ([{k: r[k] for k in ("step", "loss", "grad_norm", *keys)} for r in records(f)] for f in (a, b))
    assert ours == theirs
    first, second = ended(a), ended(b)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler looks at it
@pytest.mark.usefixtures("_noisy")
@pytest.mark.parametrize("way", WAYS)
def test_disturbed_and_resumed_as_left_alone(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **_: compiler(call, backend="eager"))
    monkeypatch.setattr(throughput, "matmul_peak", lambda *_, **__: 1e9 * (2 + sum(draw())))
    base = page(corpus, **WAYS[way])
    del base["hardware"]["peak_tflops"]
    if way != "compiled":  # which would compile what a plugin draws in Python
        base["model"]["layers"]["block"]["ffn"] = "test.noisy"
    quiet = {"evaluate": {"every": 1000, "batches": 1}, "checkpoint": {"every": 1000}}
    loud = {
        "evaluate": {"every": 1, "batches": 2},
        "checkpoint": {"every": 1},
        "sample": {"every": 1, "prompt": "the", "max_new_tokens": 3},
    }
    run(RunSpec.of({**base, **quiet}), tmp_path / "quiet")
    for stops, resume in (((1, 3), False), ((3,), True)):
        with pytest.raises(InterruptedError):
            run(RunSpec.of({**base, **loud}), tmp_path / "loud", report=Drawing(*stops), resume=resume)
    run(RunSpec.of({**base, **loud}), tmp_path / "loud", report=Drawing(), resume=True)
    equal(tmp_path / "quiet", tmp_path / "loud")


def test_each_step_and_each_micro_batch_drops_other_features(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    """With batches that are all alike and a learning rate of next to nothing, losses differ by what is dropped."""
    from transformer_kit.train import Corpus, train

    class Same:
        def batch(self, step: int) -> tuple[Tensor, None]:
            return torch.arange(34).view(2, 17) % 7, None

    still = {"optimizer": {"type": "sgd", "lr": 1e-12}, "schedule": {"type": "constant"}, "evaluate": {"every": 9}}
    losses = []
    for count, seed in ((1, 7), (2, 7), (1, 8)):
        wanted = spec(**still, train={"steps": 4, "gradient_accumulation": count, "seed": seed})
        corpus = Corpus(Same(), None, 1.0, {})
        train(wanted, corpus, tmp_path / f"{count}-{seed}")
        losses.append([r["loss"] for r in records(tmp_path / f"{count}-{seed}")])
    assert len({loss for row in losses for loss in row}) == 12


def test_an_evaluation_draws_the_same_each_time(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    with core.scope():

        @core.register("test.noisy")
        class Noisy(Objective):
            def loss(self, model: Any, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
                loss = model(tokens[:, :-1], tokens[:, 1:], skip_logits=True).loss
                return loss * (1 + sum(draw())), torch.ones(())

        still = {"optimizer": {"type": "sgd", "lr": 1e-12}, "objective": "test.noisy"}
        run(spec(**still, train={"steps": 3, "validation": 0.2}, evaluate={"every": 1}), tmp_path / "out")
    measured = [r["val_loss"] for r in records(tmp_path / "out")]
    assert measured == pytest.approx([measured[0]] * 3)
    assert len({r["loss"] for r in records(tmp_path / "out")}) == 3


def test_the_caller_keeps_its_random_numbers(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    seeds.reseed(5, "caller")
    expected = draw()
    seeds.reseed(5, "caller")
    run(spec(train={"steps": 1}), tmp_path / "out")
    assert draw() == expected


def test_a_run_does_not_depend_on_another_one_before_it(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(spec(train={"steps": 3}), tmp_path / "first")
    run(spec(train={"steps": 2, "seed": 3}), tmp_path / "other")
    draw()
    run(spec(train={"steps": 3}), tmp_path / "again")
    equal(tmp_path / "first", tmp_path / "again")


def burn() -> None:
    """Keep a core busy."""
    x = torch.ones(64, 64)
    while True:
        x = (x @ x).clamp(max=1.0)


def test_starts_under_load_and_kills_before_the_first_checkpoint(server: Any, corpus: Path, tmp_path: Path) -> None:
    """The machine's peak is measured while others work on it, and no start differs from another in any bit."""
    wanted = page(corpus, train={"steps": 12}, evaluate={"every": 12}, checkpoint={"every": 1000})
    del wanted["hardware"]["peak_tflops"]
    others = [server.Process(target=burn, daemon=True) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for name, kills in (("whole", ()), ("again", ()), ("killed", (1, 6))):
            for at in (*kills, None):
                process = server.Process(target=train_in_child, args=(wanted, str(tmp_path / name)))
                process.start()
                _kill_after(process, tmp_path / name / "metrics.jsonl", at)
                process.join()
                assert process.exitcode == (0 if at is None else -9)
    finally:
        for other in others:
            other.kill()
    equal(tmp_path / "whole", tmp_path / "again")
    equal(tmp_path / "whole", tmp_path / "killed")


def _kill_after(process: Any, metrics: Path, steps: int | None) -> None:
    """Kill the process once it has written so many steps down; never when None."""
    while steps is not None and process.is_alive():
        if metrics.exists() and len(metrics.read_bytes().splitlines()) >= steps:
            process.kill()
            return
