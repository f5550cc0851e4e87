"""Fine-tuning: what carries over, what is frozen, and which tokens are used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.train.runs import Recorder
from transformer_kit.model.folder import FolderError, load
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import TransferError, checkpoint, run
from transformer_kit.train.transfer import folded


@pytest.fixture
def trained(spec: Callable[..., RunSpec], tmp_path: Path) -> Path:
    return run(spec(train={"steps": 3}), tmp_path / "first").layout.model


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).state_dict()


def test_it_starts_from_the_trained_weights_with_a_fresh_optimizer(
    spec: Callable[..., RunSpec], trained: Path, recorder: Recorder, tmp_path: Path
) -> None:
    still = spec(train={"steps": 1}, optimizer={"type": "sgd", "lr": 1e-30})
    result = run(still, tmp_path / "second", source=trained, report=recorder)
    before, after = _weights(trained), _weights(result.layout.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert recorder.plans[0].start == 0
    assert any("the spec's `tokenizer` is not" in note for note in recorder.notes)


def test_a_run_folder_stands_for_the_model_in_it(spec: Callable[..., RunSpec], trained: Path, tmp_path: Path) -> None:
    still = spec(train={"steps": 1}, optimizer={"type": "sgd", "lr": 1e-30})
    result = run(still, tmp_path / "second", source=trained.parent)
    before, after = _weights(trained), _weights(result.layout.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_freezing_by_name(spec: Callable[..., RunSpec], trained: Path, recorder: Recorder, tmp_path: Path) -> None:
    wanted = spec(train={"steps": 2, "freeze": ["layers.0.*", "embedding.*"]})
    result = run(wanted, tmp_path / "second", source=trained, report=recorder)
    before, after = _weights(trained), _weights(result.layout.model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith(("layers.0.", "embedding."))}
    assert recorder.plans[0].learning == sum(t.numel() for name, t in before.items() if name not in same)


def test_another_model_is_refused_and_says_what_would_happen(
    spec: Callable[..., RunSpec], trained: Path, recorder: Recorder, tmp_path: Path
) -> None:
    changed = spec(train={"steps": 1}, model={"position": "rope", "head": {"type": "lm", "bias": True}})
    with pytest.raises(TransferError, match="--allow-partial") as caught:
        run(changed, tmp_path / "second", source=trained)
    said = str(caught.value)
    assert "model.position" in said
    assert "newly initialized: head.bias" in said
    assert "not used: position.table.weight" in said
    assert not (tmp_path / "second").exists()
    run(changed, tmp_path / "second", source=trained, allow_partial=True, report=recorder)
    (told,) = recorder.transfers
    assert (told.fresh, told.dropped) == (["head.bias"], ["position.table.weight"])
    assert f"loaded: {', '.join(folded(told.carried))}" in said


def test_names_of_many_layers_are_told_as_one() -> None:
    names = [f"layers.{i}.ffn.up.weight" for i in (0, 1, 2, 5)] + ["norm.weight", "layers.1.experts.3.x"]
    assert folded(names) == ["layers.0-2,5.ffn.up.weight", "norm.weight", "layers.1.experts.3.x"]


def test_a_difference_without_tensors_is_refused_too(
    spec: Callable[..., RunSpec], trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(TransferError, match=r"model.dropout: 0.2, now 0.0"):
        run(spec(train={"steps": 1}, model={"dropout": 0.0}), tmp_path / "second", source=trained)


def test_nothing_in_common(spec: Callable[..., RunSpec], trained: Path, tmp_path: Path) -> None:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": {"type": "mlp", "d_ff": 48}}
    layers = {"count": 1, "block": block}
    with pytest.raises(TransferError, match="no tensor there fits"):
        run(spec(model={"d_model": 24, "layers": layers}), tmp_path / "second", source=trained, allow_partial=True)


def test_what_is_no_model_folder(spec: Callable[..., RunSpec], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/tokenizer.json").write_text("{}")
    with pytest.raises((FolderError, ValueError)):
        run(spec(), tmp_path / "second", source=tmp_path / "empty")


def test_what_says_how_to_use_the_tokenizer_goes_on(
    spec: Callable[..., RunSpec], trained: Path, tmp_path: Path
) -> None:
    config = json.loads((trained / "tokenizer_config.json").read_text()) | {"chat_template": "{{ messages }}"}
    (trained / "tokenizer_config.json").write_text(json.dumps(config))
    (trained / "generation_config.json").write_text('{"temperature": 0.6}')
    result = run(spec(train={"steps": 2}), tmp_path / "second", source=trained)
    shutil.rmtree(trained)
    for name, key in (("tokenizer_config.json", "chat_template"), ("generation_config.json", "temperature")):
        assert key in json.loads((result.layout.model / name).read_text())
    resumed = run(spec(train={"steps": 2}), tmp_path / "second", resume=True)
    assert (resumed.layout.model / "generation_config.json").is_file()


def test_a_run_that_is_not_done_has_no_model_yet(spec: Callable[..., RunSpec], trained: Path, tmp_path: Path) -> None:
    trained.rename(trained.with_name("gone"))
    with pytest.raises(FolderError, match=r"has not come to its end; .* --resume` goes on"):
        run(spec(), tmp_path / "second", source=trained.parent)
    assert not (tmp_path / "second").exists()


def test_a_resumed_fine_tuning_needs_its_source_no_more(
    spec: Callable[..., RunSpec], trained: Path, recorder: Recorder, tmp_path: Path
) -> None:
    wanted = spec(train={"steps": 4})
    whole = run(wanted, tmp_path / "whole", source=trained)
    run(wanted, tmp_path / "second", source=trained)
    (checkpoint.path_of(tmp_path / "second/checkpoints", 4) / checkpoint.MANIFEST).unlink()
    trained.rename(trained.with_name("gone"))
    result = run(wanted, tmp_path / "second", resume=True, report=recorder)
    assert recorder.plans[0].start == 3
    before, after = _weights(whole.layout.model), _weights(result.layout.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
