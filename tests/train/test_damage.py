"""Files of a run that are something else: told, passed over or made anew, and nothing is left behind."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.train.runs import Recorder, page, records
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import CheckpointError, OutputError, TrainError, checkpoint, run
from transformer_kit.train.output import LOCK, PROBE

DEEP = "[" * 10_000 + "]" * 10_000


@pytest.fixture(scope="module")
def half(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps that was stopped after six."""
    folder = tmp_path_factory.mktemp("half") / "out"
    run(RunSpec.of(page(corpus)), folder)
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-00000008")
    (folder / "loss.png").unlink()
    return folder


@pytest.fixture
def folder(half: Path, tmp_path: Path) -> Path:
    shutil.copytree(half, tmp_path / "out")
    return tmp_path / "out"


def go_on(corpus: Path, folder: Path) -> list[str]:
    """What is noted when the run goes on."""
    told = Recorder()
    run(RunSpec.of(page(corpus)), folder, resume=True, report=told)
    assert not [p for p in (*folder.iterdir(), *(folder / "checkpoints").iterdir()) if p.name.startswith(".")]
    return told.notes


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def harm(path: Path) -> None:
        path.unlink()
        make(path)

    return harm


MANIFESTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (replaced(os.mkfifo), "must be a regular file"),
    "a device": (replaced(lambda p: p.symlink_to("/dev/zero")), "must be a regular file"),
    "a folder": (replaced(Path.mkdir), "is a folder"),
    "deep": (lambda p: p.write_text(f'{{"files": {DEEP}}}'), "nested too deeply"),
    "a list": (lambda p: p.write_text("[]"), "must be a mapping, got list"),
    "no file": (lambda p: p.write_text('{"files": {}}'), "lists no file"),
    "no name": (lambda p: p.write_text('{"files": {"\\u0000": {"size": 1}}}'), "is missing"),
    "half a character": (lambda p: p.write_text('{"files": {"\\ud800": {"size": 1}}}'), "lone surrogate"),
    "missing": (Path.unlink, "manifest.json is missing"),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_manifests(what: str, tmp_path: Path) -> None:
    harm, told = MANIFESTS[what]
    with checkpoint.committed(tmp_path / "step-00000001") as draft:
        (draft / "a").write_text("weights")
    harm(tmp_path / "step-00000001" / checkpoint.MANIFEST)
    assert told in str(checkpoint.fault(tmp_path / "step-00000001"))


CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "file": lambda p: p.write_text("x"),
    "link to a file": lambda p: p.symlink_to("/etc/hostname"),
    "link to a folder": lambda p: p.symlink_to("/etc"),
    "link to nothing": lambda p: p.symlink_to("nowhere"),
    "pipe": lambda p: os.mkfifo(p),
}


@pytest.mark.parametrize("what", CHECKPOINTS)
@pytest.mark.parametrize("step", [1, 8])
def test_checkpoints_that_are_something_else(corpus: Path, folder: Path, what: str, step: int) -> None:
    """Passed over, replaced where the run comes to the step again, and pruned without a draft that stays."""
    CHECKPOINTS[what](folder / "checkpoints" / f"step-{step:08d}")
    notes = go_on(corpus, folder)
    assert any("skipped" in note for note in notes) == (step == 8)
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"step-00000006", "step-00000008"}
    assert len(records(folder)) == 8


@pytest.mark.parametrize(("kept", "more"), [(0, ""), (4, ""), (2, f"{DEEP}\n"), (5, '{"step": "x"}\n[]\n{"st')])
def test_metrics_that_are_lost(corpus: Path, folder: Path, kept: int, more: str) -> None:
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)[:kept]
    (folder / "metrics.jsonl").write_text("".join(lines) + more)
    notes = go_on(corpus, folder)
    told = f"metrics.jsonl holds {kept} of the 6 steps that were done; the metrics of the others are lost"
    assert any(note.endswith(told) for note in notes)
    assert len(records(folder)) == kept + 2


def test_metrics_that_are_missing_or_whole(corpus: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "metrics.jsonl").unlink()
    assert any("holds 0 of the 6 steps" in note for note in go_on(corpus, tmp_path / "other"))
    assert not any("metrics" in note for note in go_on(corpus, folder))


@pytest.mark.parametrize(
    "origin", ["[]", "{}", '{"from": 3}', '{"from": "\\u0000"}', "{", DEEP, f'{{"from": "{"x" * 300}"}}']
)
def test_origins(corpus: Path, folder: Path, origin: str) -> None:
    (folder / "origin.json").write_text(origin)
    with pytest.raises(OutputError, match=r"origin\.json"):
        run(RunSpec.of(page(corpus)), folder, resume=True)


@pytest.mark.parametrize("name", ["metrics.jsonl", "origin.json", "loss.png", "checkpoints", "samples", LOCK])
def test_pipes(corpus: Path, folder: Path, name: str) -> None:
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(OutputError, match=name):
        run(RunSpec.of(page(corpus)), folder, resume=True)


@pytest.mark.parametrize("name", [LOCK, PROBE])
def test_what_a_link_leads_to_stays(corpus: Path, folder: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (folder / name).symlink_to(tmp_path / "precious")
    if name == LOCK:
        with pytest.raises(OutputError):
            run(RunSpec.of(page(corpus)), folder, resume=True)
    else:
        go_on(corpus, folder)
    assert (tmp_path / "precious").read_text() == "precious"


def test_state_of_another_shape(corpus: Path, folder: Path) -> None:
    """A checkpoint that somebody made, whole by its own manifest."""
    path = folder / "checkpoints" / "step-00000006"
    state = json.loads((path / "state.json").read_text())
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda s: s.update(header=[]),
        lambda s: s["header"].update(step="x"),
        lambda s: s["header"].update(step=-1),
        lambda s: s["header"].update(more=1),
        lambda s: s["header"].update(seconds=None),
        lambda s: s.update(optimizer=None),
        lambda s: s["optimizer"].update(groups=[]),
        lambda s: s["optimizer"].update(state=[1]),
    ]
    for change in changes:
        other = json.loads(json.dumps(state))
        change(other)
        with checkpoint.committed(path) as draft:
            for file in path.iterdir():
                if file.name != checkpoint.MANIFEST:
                    shutil.copy(file, draft)
            (draft / "state.json").write_text(json.dumps(other))
        with pytest.raises(CheckpointError):
            run(RunSpec.of(page(corpus)), folder, resume=True)


LEFT = (
    [PROBE],
    [LOCK],
    [LOCK, PROBE],
    [LOCK, ".tokenizer.json.123", "tokenizer.json"],
    [LOCK, "tokenizer.json", ".tokenizer_config.json.9", "tokenizer_config.json", "origin.json", ".run.yaml.draft"],
)


@pytest.mark.parametrize("names", LEFT, ids=str)
def test_what_was_killed_before_its_page(corpus: Path, tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "out").mkdir()
    for name in names:
        (tmp_path / "out" / name).write_text("")
    run(RunSpec.of(page(corpus)), tmp_path / "out")
    assert not [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".") or p.name == "origin.json"]


def test_what_fails_before_its_page(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformer_kit.train import launch

    def fail(*args: Any, **options: Any) -> None:
        raise TrainError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(launch.yaml, "safe_dump", fail)  # after the tokenizer was written
        with pytest.raises(TrainError, match="on purpose"):
            run(RunSpec.of(page(corpus)), tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()
