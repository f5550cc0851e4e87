"""Precision, peaks and counters."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from registry import core
from tests.train.runs import Recorder
from transformer_kit.cost.card import card
from transformer_kit.model.build import build
from transformer_kit.spec.schema import Hardware, RunSpec
from transformer_kit.train import checkpoint, plot, precision, run, throughput
from transformer_kit.train.assemble import architecture
from transformer_kit.train.precision import FAST_BF16, Placement, has_fast_bfloat16, place
from transformer_kit.train.throughput import Meter, flops_per_token, peak_flops

CPU = torch.device("cpu")


def test_bfloat16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    have = torch.cpu.get_capabilities()
    for feature in (None, *FAST_BF16):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda on=feature: {**have, **dict.fromkeys(FAST_BF16, False), on: True}
        )
        chosen = place(Hardware(device="cpu"))
        assert chosen.dtype == (torch.float32 if feature is None else torch.bfloat16)
        assert chosen.note is None


def test_asking_for_slow_bfloat16_is_allowed_and_said(
    spec: Callable[..., RunSpec], recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    run(spec(train={"steps": 2}, hardware={"precision": "bfloat16"}), tmp_path / "out", report=recorder)
    assert recorder.plans[0].precision == "bfloat16"
    assert any("bfloat16 is slow on this cpu" in note for note in recorder.notes)
    assert place(Hardware(device="cpu", precision="float32")).dtype == torch.float32
    assert not has_fast_bfloat16(CPU)


@pytest.mark.parametrize("faster", [False, True])
def test_compiling_what_is_faster_without_is_said(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "prefers_onednn", lambda: faster)
    compiled = Hardware(device="cpu", precision="float32", compile=True)
    assert place(compiled).note == (precision.COMPILED if faster else None)
    assert place(compiled.model_copy(update={"compile": False})).note is None


def test_flops_are_six_for_each_weight_and_twelve_for_each_score(spec: Callable[..., RunSpec]) -> None:
    wanted = spec(model={"position": "none"})
    model = build(architecture(wanted), device="meta")
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name)
    objective = core.get("objective", "causal_lm")
    counted = flops_per_token(model, objective(objective.Options()), 16)
    # The gradient of the first layer's input has no use, but its embedding learns, so nothing is saved there.
    assert counted == 6 * matrices + 12 * 2 * 16 * 16


@pytest.mark.parametrize("objective", core.names("objective"))
def test_one_counter_for_the_card_and_for_mfu(spec: Callable[..., RunSpec], objective: str) -> None:
    """With many ids the loss is taken in pieces, of which the meta device runs few."""
    wanted = spec(model={"vocab_size": 128_256, "max_seq_len": 4096, "position": "none", "dropout": 0.0})
    model = build(architecture(wanted), device="meta")
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name)
    part = core.get("objective", objective)
    counted = flops_per_token(model, part(part.Options()), 4096)
    assert counted == 6 * matrices + 12 * 2 * 16 * 4096
    assert counted == card(architecture(wanted), batch=1, seq=4096).flops.train_per_token


def test_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = Placement(CPU, torch.float32)
    assert peak_flops(placement, 2.5) == (2.5e12, None)
    begin = time.perf_counter()
    for others in (None, "3 threads of other programs ran on 2 cores"):
        monkeypatch.setattr(throughput, "busy", lambda _, others=others: others)
        peak, note = peak_flops(placement, None)
        assert 1e8 < peak < 1e14
        assert (note is None) == (others is None)
    assert note is not None
    assert note.startswith("3 threads of other programs ran on 2 cores while the peak for MFU was measured; ")
    assert time.perf_counter() - begin < 5


def test_a_peak_stays_as_it_is_for_the_whole_run_and_more_than_it_is_said(
    spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    peaks = iter([1e3, 1e15, 1e15])
    monkeypatch.setattr(throughput, "busy", lambda _: None)
    monkeypatch.setattr(throughput, "matmul_peak", lambda *_, **__: next(peaks))
    measured = {"hardware": {"peak_tflops": None}, "evaluate": {"every": 2, "batches": 1}}
    run(spec(**measured, checkpoint={"every": 2, "keep": 9}), tmp_path / "out", report=recorder)
    assert {plan.peak_flops for plan in recorder.plans} == {1e3}
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    flops = recorder.plans[0].flops_per_token
    assert all(r["mfu"] == pytest.approx(r["tokens_per_second"] * flops / 1e3) and r["mfu"] > 1 for r in lines)
    (note,) = [n for n in recorder.notes if "MFU" in n]
    assert "faster than its peak of 1e+03 FLOP/s" in note
    assert "hardware.peak_tflops" in note
    for _, path in checkpoint.found(tmp_path / "out/checkpoints")[:2]:
        shutil.rmtree(path)
    again = Recorder()
    run(spec(**measured), tmp_path / "out", report=again, resume=True)
    assert again.plans[0].start == 4
    assert again.plans[0].peak_flops == 1e3  # no second measurement, which would be another
    named = Recorder()
    run(spec(**measured | {"hardware": {"peak_tflops": 2.0}}), tmp_path / "out", report=named, resume=True)
    assert named.plans[0].peak_flops == 2e12


def test_the_meter_leaves_pauses_out() -> None:
    meter = Meter(tokens_per_step=1000, flops_per_token=2.0, peak=1e6)
    meter.begin()
    time.sleep(0.02)
    with meter.pause():
        time.sleep(0.5)
    speed = meter.lap(1)
    assert 1000 / 0.5 < speed <= 1000 / 0.02
    assert meter.mfu(speed) == speed * 2 / 1e6
    assert Meter(1, 0.0, 0.0).mfu(5.0) == 0


def test_the_plot_needs_records(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert not plot.draw(metrics, tmp_path / "loss.png")
    metrics.write_text('{"step": 1, "loss": 2.0}\n[1]\n{"step": 2, "lo')
    assert plot.read(metrics) == [{"step": 1, "loss": 2.0}]
    assert plot.draw(metrics, tmp_path / "loss.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]


def test_smoothing_has_no_pull_toward_zero() -> None:
    assert plot.smooth([3.0, 3.0, 3.0], 10.0) == pytest.approx([3.0, 3.0, 3.0])
    assert plot.smooth([0.0, 1.0], 1.0)[1] == pytest.approx(1 / (1 + 0.36788), rel=1e-4)


def test_a_run_that_recomputes_is_the_same_run(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    model = {"dropout": 0.1}
    plain = run(spec(model=model, train={"steps": 2}), tmp_path / "plain")
    again = run(spec(model=model, train={"steps": 2}, hardware={"activation_checkpointing": True}), tmp_path / "again")
    assert again.loss == plain.loss
    # Not the files: safetensors writes the entries of their headers in any order.
    ours, theirs = (load_file(result.layout.model / "model.safetensors") for result in (plain, again))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_that_steps_in_the_backward_pass_learns_the_same(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    train = {"steps": 4, "max_grad_norm": None, "gradient_accumulation": 1}
    plain = run(spec(train=train), tmp_path / "plain")
    early = run(spec(train=train, hardware={"optimizer_in_backward": True}), tmp_path / "early")
    assert early.loss == pytest.approx(plain.loss, rel=1e-5)
    ours, theirs = (load_file(result.layout.model / "model.safetensors") for result in (plain, early))
    for name, weight in ours.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler looks at it
def test_a_compiled_run_is_the_same_run(
    spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled by the backend that does not need a compiler: what is saved has the model's own names."""
    compiler, asked = torch.compile, []

    def without_compiler(call: Callable[..., object], **_: object) -> object:
        asked.append(call)
        return compiler(call, backend="eager")

    monkeypatch.setattr(torch, "compile", without_compiler)
    sample = {"every": 2, "prompt": "the ", "max_new_tokens": 3}
    plain = run(spec(train={"steps": 2}, sample=sample), tmp_path / "plain")
    assert not asked
    compiled = run(spec(train={"steps": 2}, sample=sample, hardware={"compile": True}), tmp_path / "compiled")
    assert len(asked) == len(spec().model.layers.blocks)
    assert compiled.loss == pytest.approx(plain.loss, rel=1e-5)
    texts = [(result.layout.samples / "step-00000002.txt").read_text("utf-8") for result in (plain, compiled)]
    assert texts[0] == texts[1]
    assert compiled.layout.model.joinpath("model.safetensors").exists()


def test_the_page_names_the_kernel(
    spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, part, asked = {"precision": "float32"}, core.get("kernel", "eager"), []
    forward = part.forward
    monkeypatch.setattr(part, "forward", lambda *args, **kwargs: asked.append(1) or forward(*args, **kwargs))
    fused = run(spec(train={"steps": 2}, hardware=exact), tmp_path / "fused")
    assert not asked
    eager = run(spec(train={"steps": 2}, hardware=exact | {"kernel": "eager"}), tmp_path / "eager")
    assert asked
    assert eager.loss == pytest.approx(fused.loss, rel=1e-5)
    cards = [card(spec(hardware={"kernel": kernel}), seq=16) for kernel in ("eager", "sdpa")]
    assert cards[0].memory.activations > cards[1].memory.activations  # the scores
