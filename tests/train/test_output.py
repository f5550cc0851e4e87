"""The run's folder: refused before anything is written, or left complete."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from tests.train.runs import Recorder, records
from transformer_kit.convert.companions import GENERATION, TOKENIZER
from transformer_kit.data.batches import Batches
from transformer_kit.model.folder import load
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.schema import Hardware, RunSpec
from transformer_kit.train import OutputError, assemble, output, run
from transformer_kit.train.errors import RoomError
from transformer_kit.train.output import Layout, check_space, claim, lock
from transformer_kit.train.precision import place


def test_a_folder_with_something_in_it_is_not_touched(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="not empty; choose another folder"):
        run(spec(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


BEGUN = [".lock", ".probe", ".tokenizer.json.1", "tokenizer.json", "tokenizer_config.json", *TOKENIZER[2:], GENERATION]
BEGUN += ["origin.json", ".run.yaml.draft"]


@pytest.mark.parametrize("count", range(1, len(BEGUN) + 1))
def test_a_folder_whose_run_was_killed_before_it_began_is_free(
    spec: Callable[..., RunSpec], tmp_path: Path, count: int
) -> None:
    for name in BEGUN[:count]:
        (tmp_path / name).write_text("half of")
    with pytest.raises(OutputError, match="leave --resume out to start one"):
        run(spec(train={"steps": 1}), tmp_path, resume=True)
    assert run(spec(train={"steps": 1}), tmp_path).step == 1


def test_files_that_look_like_a_runs_are_not_touched_where_no_run_was(
    spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text("precious")
    with pytest.raises(OutputError, match="not empty; choose another folder"):
        run(spec(), tmp_path)


def test_a_run_that_is_refused_leaves_no_folder(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing"):
        run(spec(data={"type": "text", "paths": "nothing.txt"}), tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match="nothing"):
        run(spec(data={"type": "text", "paths": "nothing.txt"}), tmp_path / "mine")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_run_that_is_there_offers_to_go_on(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    run(spec(train={"steps": 1}), tmp_path / "out")
    with pytest.raises(OutputError, match="resume it with --resume"):
        run(spec(train={"steps": 1}), tmp_path / "out")


def test_a_file_is_no_folder_and_nothing_is_nothing_to_resume(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputError, match="is a file"):
        claim(file, resume=False)
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        claim(file / "below", resume=False)
    with pytest.raises(OutputError, match="holds no run to resume"):
        claim(tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_takes_no_files() -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        claim(Path("/proc/self/out"), resume=False)


def test_a_disk_too_small_is_found_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a checkpoint takes .* TiB, the disk has"):
        check_space(tmp_path, 1 << 60, 2)
    assert check_space(tmp_path, 1, 2) is None
    assert "checkpoints will take" in (check_space(tmp_path, 1024, 1 << 50) or "")


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    program = (
        "import sys; from pathlib import Path; from transformer_kit.train.output import Layout, lock\n"
        f"with lock(Layout(Path({str(tmp_path)!r}))): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another process is training there"), lock(layout):
            pass
        other.communicate("")
    with lock(layout):
        pass
    assert not (tmp_path / output.LOCK).exists()


def test_what_a_run_leaves(spec: Callable[..., RunSpec], recorder: Recorder, tmp_path: Path) -> None:
    wanted = spec(sample={"every": 4, "prompt": "the ", "max_new_tokens": 5}, train={"document_mask": True})
    result = run(wanted, tmp_path / "out", report=recorder)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        *("run.yaml", "metrics.jsonl", "checkpoints", "samples", "model", "loss.png"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert (tmp_path / "out/loss.png").read_bytes().startswith(b"\x89PNG")
    assert load(result.layout.model).spec.model == wanted.model
    assert result.loss == records(tmp_path / "out")[-1]["loss"]
    assert [step for step, _ in recorder.samples] == [4, 8]
    assert recorder.samples[0][1].startswith("the ")
    assert (tmp_path / "out/samples/step-00000008.txt").read_text() == recorder.samples[1][1]
    plan = recorder.plans[0]
    chosen = str(place(Hardware()).dtype).removeprefix("torch.")  # what this processor multiplies fast
    assert (plan.tokens_per_step, plan.device, plan.precision) == (2 * 2 * 16, "cpu", chosen)
    assert plan.parameters == plan.learning == sum(p.numel() for p in load(result.layout.model).parameters())


def test_a_sample_goes_on_past_the_context_of_absolute_positions(
    spec: Callable[..., RunSpec], recorder: Recorder, tmp_path: Path
) -> None:
    prompt = "the quick brown fox jumps "
    sample = {"every": 8, "prompt": prompt, "max_new_tokens": 30}
    run(spec(model={"position": "learned"}, sample=sample), tmp_path / "out", report=recorder)
    ((_, text),) = recorder.samples
    assert len(text) > len(prompt) > 16
    assert any(note.startswith("samples: 26 tokens and 30 new ones") for note in recorder.notes)


def test_an_evaluation_reads_nothing_twice(
    spec: Callable[..., RunSpec], recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = Batches.batch

    def batch(self: Batches, step: int) -> tuple[Tensor, Tensor | None]:
        if self._key == "validation":
            seen.append(step)
        return real(self, step)

    monkeypatch.setattr(Batches, "batch", batch)
    run(spec(train={"steps": 1}, evaluate={"batches": 100_000}), tmp_path / "out", report=recorder)
    assert seen == list(range(len(seen)))
    assert any(f"has {len(seen)} of the 100000 batches" in note for note in recorder.notes)


def test_metrics_are_complete(spec: Callable[..., RunSpec], recorder: Recorder, tmp_path: Path) -> None:
    result = run(spec(), tmp_path / "out", report=recorder)
    lines = records(tmp_path / "out")
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["tokens"] for line in lines] == [64 * n for n in range(1, 9)]
    assert [line["step"] for line in lines if "val_loss" in line] == [4, 8]
    # One byte a token but for the single end of text: bits per byte are nats over ln 2.
    step, loss, bits = recorder.evaluations[-1]
    assert (step, loss) == (8, result.validation_loss)
    assert bits == pytest.approx(loss / 0.693147, rel=1e-3)
    assert recorder.seen[-1].step == 8
    assert recorder.seen[-1].eta == 0
    assert 0 < recorder.seen[-1].mfu < 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"seq_len": 17}}, r"train.seq_len: must be at most model.max_seq_len \(16\), got 17"),
        ({"model": {"vocab_size": 200}}, r"model.vocab_size: must be at least the tokenizer's \(257\), got 200"),
        ({"sample": {"prompt": ""}}, "sample.prompt: must have at least one token, got 0"),
        ({"optimizer": {"type": "sgd", "lr": 0.1, "nesterov": True}}, "optimizer: nesterov needs a momentum"),
        ({"hardware": {"device": "cuda:77"}}, "hardware.device: cannot use 'cuda:77' here"),
        ({"hardware": {"device": "abacus"}}, "hardware.device: cannot use 'abacus'"),
        ({"hardware": {"device": "meta"}}, "hardware.device: nothing can be trained on 'meta'"),
        ({"train": {"freeze": ["no.such.*"]}}, "train.freeze: no parameter is named like 'no.such.*'"),
        ({"train": {"freeze": ["*"]}}, "train.freeze: every parameter is frozen"),
    ],
)
def test_what_cannot_run_is_refused_and_leaves_nothing(
    spec: Callable[..., RunSpec], tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        run(spec(**changes), tmp_path / "out")
    assert len(caught.value.problems) == 1
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_is_said_at_once(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    wrong = spec(
        train={"seq_len": 17, "freeze": ["no.such.*"]},
        optimizer={"type": "sgd", "lr": 0.1, "nesterov": True},
        data={"type": "text", "paths": ["nowhere.txt"]},
        hardware={"device": "abacus"},
        model={"vocab_size": 200},
        sample={"prompt": ""},
    )
    with pytest.raises(SpecError) as caught:
        run(wrong, tmp_path / "out")
    assert {problem.mark.path for problem in caught.value.problems} == {
        *("train.seq_len", "train.freeze", "optimizer", "data", "hardware.device", "model.vocab_size"),
        "sample.prompt",
    }


def test_a_prompt_is_refused_before_the_first_step_whatever_the_tokenizer(
    spec: Callable[..., RunSpec], tmp_path: Path
) -> None:
    learned, model = {"type": "bpe", "vocab_size": 260}, {"vocab_size": 300, "position": "rope"}
    with pytest.raises(SpecError, match=r"sample.prompt: must have at least one token"):
        run(spec(tokenizer=learned, model=model, sample={"prompt": ""}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    model = {"position": "rope"}
    trained = run(spec(train={"steps": 1}, model=model), tmp_path / "first").layout.model
    with pytest.raises(SpecError, match=r"sample.prompt: must have"):
        run(spec(sample={"prompt": ""}, model=model), tmp_path / "second", source=trained)


def test_weights_that_memory_cannot_hold_are_never_allocated(
    spec: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "free_memory", lambda device: 2**16)
    with pytest.raises(RoomError, match=r"weights and gradients take .* KiB, cpu has 64 KiB free"):
        run(spec(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_room_for_one_gradient_is_enough_where_each_goes_at_once(
    spec: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = spec(train={"max_grad_norm": None, "gradient_accumulation": 1})
    early = spec(train={"max_grad_norm": None, "gradient_accumulation": 1}, hardware={"optimizer_in_backward": True})
    weights = sum(p.nbytes for p in assemble.outline(page).parameters())
    monkeypatch.setattr(assemble, "free_memory", lambda device: int(1.9 * weights))
    with pytest.raises(RoomError):
        assemble.placed(page, assemble.outline(page))
    assert assemble.placed(early, assemble.outline(early)).device.type == "cpu"
