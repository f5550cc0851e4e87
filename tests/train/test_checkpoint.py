"""Checkpoints are whole or absent, and what is in them comes back exactly or is refused with a reason."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.train.runs import Recorder, records
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import CheckpointError, OutputError, checkpoint, run, snapshot
from transformer_kit.train.errors import TrainError
from transformer_kit.train.output import writing


def _write(path: Path, content: str = "weights") -> None:
    with checkpoint.committed(path) as draft:
        (draft / "a").write_text(content)
        (draft / "b").write_text("more")


def test_a_failed_write_leaves_the_old_one_and_no_trace(tmp_path: Path) -> None:
    path = checkpoint.path_of(tmp_path, 5)
    _write(path, "old")

    def fail() -> None:
        with writing(path, "; keep calm"), checkpoint.committed(path) as draft:
            (draft / "a").write_text("new")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="disk is full; keep calm"):
        fail()
    assert (path / "a").read_text() == "old"
    assert checkpoint.fault(path) is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_can_be_replaced(tmp_path: Path) -> None:
    path = checkpoint.path_of(tmp_path, 5)
    _write(path, "old")
    _write(path, "new")
    assert (path / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda p: (p / "a").unlink(), "a is missing"),
        (lambda p: (p / "a").write_text("weight"), "a has 6 bytes, not 7"),
        (lambda p: (p / "a").write_text("weighty"[::-1]), "content"),
        (lambda p: (p / checkpoint.MANIFEST).unlink(), "manifest.json is missing"),
        (lambda p: (p / checkpoint.MANIFEST).write_text("{"), "damaged"),
        (lambda p: (p / checkpoint.MANIFEST).write_text('{"files": [1]}'), "damaged"),
        (lambda p: (p / checkpoint.MANIFEST).write_text('{"files": {"../a": {}}}'), "outside"),
    ],
)
def test_every_harm_is_found(tmp_path: Path, harm: Callable[[Path], None], reason: str) -> None:
    path = checkpoint.path_of(tmp_path, 1)
    _write(path)
    assert checkpoint.fault(path) is None
    harm(path)
    assert reason in (checkpoint.fault(path) or "")


def test_pruning_keeps_the_newest_and_what_lies_ahead(tmp_path: Path) -> None:
    for step in (1, 2, 3, 9):
        _write(checkpoint.path_of(tmp_path, step))
    checkpoint.prune(tmp_path, keep=2, step=3)
    assert [step for step, _ in checkpoint.found(tmp_path)] == [9, 3, 2]


# ------------------------------------------------------------------ in a run


def _harmed(path: Path) -> None:
    data = bytearray((path / snapshot.WEIGHTS).read_bytes())
    data[-3] ^= 1
    (path / snapshot.WEIGHTS).write_bytes(data)


def test_a_flipped_bit_falls_back_to_the_one_before(
    spec: Callable[..., RunSpec], recorder: Recorder, tmp_path: Path
) -> None:
    run(spec(), tmp_path / "out")
    before = records(tmp_path / "out")
    _harmed(checkpoint.path_of(tmp_path / "out/checkpoints", 8))
    result = run(spec(), tmp_path / "out", resume=True, report=recorder)
    assert recorder.plans[0].start == 6
    assert any("step-00000008" in note and "content" in note for note in recorder.notes)
    assert result.step == 8
    assert records(tmp_path / "out") == before
    assert checkpoint.fault(checkpoint.path_of(tmp_path / "out/checkpoints", 8)) is None


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (9, 1), (10, 1), (300, 30), (4999, 500), (10**6, 500)])
def test_by_default_a_run_is_saved_ten_times_or_more(spec: Callable[..., RunSpec], steps: int, every: int) -> None:
    assert spec(train={"steps": steps}, checkpoint={"every": None}).checkpoint_every == every
    assert spec(train={"steps": steps}, checkpoint={"every": 7}).checkpoint_every == 7


def test_a_run_without_a_rhythm_of_its_own_saves_on_its_way(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(spec(train={"steps": 11}, checkpoint={"every": None, "keep": 20}), tmp_path / "run")
    saved = [step for step, _ in checkpoint.found(tmp_path / "run" / "checkpoints")]
    assert saved == [11, 10, 8, 6, 4, 2]


def test_one_of_several_processes_is_refused(
    spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainError, match=r"trained by one process, and WORLD_SIZE says that this is one of 2"):
        run(spec(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("WORLD_SIZE", "1")
    run(spec(train={"steps": 1}), tmp_path / "run")


def test_no_whole_checkpoint_is_an_error(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(spec(train={"steps": 3}), tmp_path / "out")
    for _, path in checkpoint.found(tmp_path / "out/checkpoints"):
        _harmed(path)
    with pytest.raises(CheckpointError, match="none of 1 checkpoints is complete"):
        run(spec(train={"steps": 3}), tmp_path / "out", resume=True)


def test_another_spec_is_refused_and_harmless_changes_are_not(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(spec(train={"steps": 3}), tmp_path / "out")
    lines = records(tmp_path / "out")
    for changes, where in (
        ({"train": {"steps": 3, "seed": 8}}, "train.seed: 7, now 8"),
        ({"model": {"d_model": 32}, "train": {"steps": 3}}, "model.d_model: 16, now 32"),
    ):
        with pytest.raises(CheckpointError, match=where):
            run(spec(**changes), tmp_path / "out", resume=True)
    assert records(tmp_path / "out") == lines
    result = run(spec(train={"steps": 3}, evaluate={"every": 1}, checkpoint={"keep": 9}), tmp_path / "out", resume=True)
    assert result.step == 3


def test_another_corpus_is_refused(
    spec: Callable[..., RunSpec], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = tmp_path_factory.mktemp("corpus") / "text.txt"
    text.write_text("some words " * 500)
    changed = spec(train={"steps": 3}, data={"type": "text", "paths": [str(text)]})
    run(changed, tmp_path / "out")
    text.write_text("same words " * 500)
    with pytest.raises(CheckpointError, match=r"corpus\.tokens"):
        run(changed, tmp_path / "out", resume=True)


def _reseal(path: Path, change: Callable[[dict[str, torch.Tensor]], None], file: str) -> None:
    """Change tensors of a checkpoint and make its manifest agree."""
    tensors = load_file(path / file)
    change(tensors)
    save_file(tensors, path / file)
    (path / checkpoint.MANIFEST).unlink()
    checkpoint._seal(path)


@pytest.mark.parametrize("file", [snapshot.WEIGHTS, snapshot.OPTIMIZER])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(sorted(t)[0]), "missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "unknown extra"),
        (lambda t: t.update({sorted(t)[0]: torch.zeros(5, 5)}), r"is \[5, 5\], not"),
    ],
)
def test_tensors_that_do_not_fit(
    spec: Callable[..., RunSpec], tmp_path: Path, file: str, change: Callable[..., None], words: str
) -> None:
    run(spec(train={"steps": 1}), tmp_path / "out")
    path = checkpoint.path_of(tmp_path / "out/checkpoints", 1)
    _reseal(path, change, file)
    with pytest.raises(CheckpointError, match=f"{file}.*{words}"):
        run(spec(train={"steps": 1}), tmp_path / "out", resume=True)


def test_state_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["odd"] = object()
    header = snapshot.Header(0, {}, {}, {}, 0.0)
    with pytest.raises(CheckpointError, match="'odd' of weight is a object"):
        snapshot.save(tmp_path, header, model, optimizer)


def test_nothing_is_pickled(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(spec(train={"steps": 1}), tmp_path / "out")
    path = checkpoint.path_of(tmp_path / "out/checkpoints", 1)
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".json"}
    assert json.loads((path / snapshot.STATE).read_text())["header"]["step"] == 1
