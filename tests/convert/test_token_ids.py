"""Ids of beginnings, ends and padding: all that a folder names count, and go out as they came in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data import zoo
from transformer_kit import load, load_tokenizer, save
from transformer_kit.cli.generation import _samplers
from transformer_kit.convert.companions import carry_in
from transformer_kit.convert.errors import ConvertError
from transformer_kit.convert.export import export
from transformer_kit.convert.importing import import_folder
from transformer_kit.generate.defaults import defaults
from transformer_kit.model.build import build
from transformer_kit.spec.schema import Spec

MODEL = {
    "vocab_size": 400, "d_model": 32, "max_seq_len": 64, "position": {"type": "rope", "theta": 1e4},
    "norm": {"type": "rms_norm", "eps": 1e-5},
    "layers": {"count": 1, "block": {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2},
                                     "ffn": {"type": "gated", "d_ff": 48}}},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """A Hugging Face folder of a tiny Llama with a chat's tokenizer, whose files name ids as given."""

    def made(
        config: dict[str, Any],
        generation: dict[str, Any] | None = None,
        said: dict[str, Any] | None = None,
        **model: Any,
    ) -> Path:
        path = tmp_path / "hf"
        export(build(Spec.of({"model": MODEL | model}), seed=0), path)
        page = json.loads((path / "config.json").read_text())
        page = {key: value for key, value in page.items() if not key.endswith("_token_id")} | config
        (path / "config.json").write_text(json.dumps(page))
        (path / "generation_config.json").unlink()
        if generation is not None:
            (path / "generation_config.json").write_text(json.dumps(generation))
        zoo.write("gpt2", path)
        if said is not None:
            (path / "tokenizer_config.json").write_text(json.dumps(said))
        return path

    return made


START, END, CHAT = 0, 358, {"eos_token": "<|im_end|>"}


@pytest.mark.parametrize(
    ("config", "generation", "said", "ends"),
    [
        ({}, None, CHAT, (END,)),
        ({"eos_token_id": START}, None, CHAT, (END, START)),
        ({"eos_token_id": [START, 7]}, None, CHAT, (END, START, 7)),
        ({"eos_token_id": None}, {"eos_token_id": [9, START]}, CHAT, (END, 9, START)),
        ({"eos_token_id": 5}, {"eos_token_id": 6}, CHAT, (END, 5, 6)),
        ({"eos_token_id": [5, 10**6, -1]}, {"eos_token_id": 2**40}, CHAT, (END, 5)),
        ({"eos_token_id": 5}, None, {}, (5,)),
        ({}, None, {}, (START,)),
        ({"eos_token_id": []}, {"eos_token_id": None}, {}, (START,)),
    ],
)
def test_a_text_ends_at_every_end_that_anything_names(
    folder: Callable[..., Path], config: Any, generation: Any, said: Any, ends: tuple[int, ...], tmp_path: Path
) -> None:
    path = folder(config, generation, said)
    import_folder(path, tmp_path / "kit")
    tuned = tmp_path / "tuned"
    save(load(tmp_path / "kit"), tuned, load_tokenizer(tmp_path / "kit"))
    carry_in(tmp_path / "kit", tuned)
    for place in (path, tmp_path / "kit", tuned):
        assert load_tokenizer(place).ends == ends


def test_an_end_by_another_files_name_ends_the_text(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder({}, None, {})
    (path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    assert load_tokenizer(path).end_of_text == END
    import_folder(path, tmp_path / "kit")
    model, coming = load(tmp_path / "kit"), iter([66, END, 67, 68, 69, 70])
    model.register_forward_hook(
        lambda _, __, out: out._replace(logits=out.logits.index_fill(-1, torch.tensor(next(coming)), 1e4))
    )
    assert model.generate_text("the cat", max_new_tokens=5) == load_tokenizer(path).decode([66])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (None, END, None)),
        ({"bos_token_id": 3, "eos_token_id": [5, 6], "pad_token_id": 7}, (3, [5, 6], 7)),
        ({"bos_token_id": 10**6, "eos_token_id": None, "pad_token_id": -1}, (10**6, END, -1)),
        ({"pad_token_id": 400}, (None, END, None)),
    ],
)
def test_ids_go_out_as_they_came_in(
    folder: Callable[..., Path], config: dict[str, Any], expected: tuple[Any, ...], tmp_path: Path
) -> None:
    import_folder(folder(config, {"eos_token_id": 9, "do_sample": True}), tmp_path / "kit")
    kit = tmp_path / "kit"
    export(load(kit), tmp_path / "out", load_tokenizer(kit), beside=kit)
    page = json.loads((tmp_path / "out" / "config.json").read_text())
    assert tuple(page[f"{use}_token_id"] for use in ("bos", "eos", "pad")) == expected
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {
        "eos_token_id": 9,
        "do_sample": True,
    }
    assert not (tmp_path / "out" / "token_ids.json").exists()


def test_ids_that_nobody_names_are_null(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    export(build(Spec.of({"model": MODEL}), seed=0), tmp_path / "out")
    page = json.loads((tmp_path / "out" / "config.json").read_text())
    assert all(page[f"{use}_token_id"] is None for use in ("bos", "eos", "pad"))
    read = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (None, None, None)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("wrong", ["</s>", [1, "2"], True, {"id": 1}, 1.5])
def test_ids_that_are_none_are_refused(folder: Callable[..., Path], name: str, wrong: object, tmp_path: Path) -> None:
    path = folder({}, {})
    page = json.loads((path / name).read_text()) | {"eos_token_id": wrong}
    (path / name).write_text(json.dumps(page))
    with pytest.raises(ConvertError, match=rf"{name}: eos_token_id must be an id, a list of ids or null, got "):
        import_folder(path, tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (None, None),
        ({}, {}),
        ({"do_sample": False, "temperature": 0.6}, {}),
        ({"do_sample": True}, {"top_k": 50}),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": None},
            {"top_k": 50, "temperature": 0.6, "top_p": 0.9},
        ),
        ({"do_sample": True, "temperature": 1.0, "top_p": 1, "top_k": 0, "min_p": 0.05}, {"min_p": 0.05}),
        ({"do_sample": True, "temperature": 1.0, "top_k": 0}, {"temperature": 1.0}),
        ({"do_sample": True, "temperature": 0, "top_k": 5}, {}),
    ],
)
def test_sampling_defaults_are_those_of_generation_config(page: Any, expected: Any, tmp_path: Path) -> None:
    if page is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(page))
    assert defaults(tmp_path).sampling == expected
    used = [
        {o.part.name: value for o in [sampler] for value in o.model_dump().values()}
        for sampler in _samplers({}, expected)
    ]
    assert {k: v for sampler in used for k, v in sampler.items() if k in (expected or {})} == (expected or {})


def test_flags_override_what_the_folder_asks_for() -> None:
    asked = {"temperature": 0.6, "top_k": 50}
    names = [(o.part.name, *o.model_dump().values()) for o in _samplers({"temperature": 0.9, "top_p": 0.5}, asked)]
    assert names == [("temperature", 0.9), ("top_k", 50), ("top_p", 0.5)]
    assert [o.part.name for o in _samplers({"top_k": 0}, asked)] == ["temperature"]
    assert [(o.part.name, o.value) for o in _samplers({"top_k": -1, "min_p": 0}, None)] == [("temperature", 1.0)]
    assert _samplers({"temperature": 0}, asked) == []


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ({"do_sample": True, "top_k": -3}, "top_k: "),
        ({"do_sample": True, "temperature": "warm"}, "temperature: "),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number, at least 1; got 0"),
        ([], "must be a mapping, got list"),
    ],
)
def test_generation_configs_that_are_wrong(page: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(page))
    with pytest.raises(ValueError, match=rf"generation_config\.json: {message}"):
        defaults(tmp_path)


def test_settings_that_the_kit_does_not_apply_are_told(tmp_path: Path) -> None:
    page = {"repetition_penalty": 1.1, "num_beams": 1, "suppress_tokens": [5], "no_repeat_ngram_size": None}
    (tmp_path / "generation_config.json").write_text(json.dumps(page))
    assert defaults(tmp_path).not_applied == ("repetition_penalty: 1.1", "suppress_tokens: [5]")


@pytest.mark.parametrize("tied", [False, True])
def test_a_vocabulary_is_padded_where_asked(folder: Callable[..., Path], tied: bool, tmp_path: Path) -> None:
    path = folder({}, None, CHAT, vocab_size=300, head={"type": "lm", "tied": tied})
    with pytest.raises(ConvertError, match=r"has 360 ids, more than the model's vocab_size \(300\); --pad-vocab gives"):
        import_folder(path, tmp_path / "kit")
    import_folder(path, tmp_path / "shape", spec_only=True)
    found = import_folder(path, tmp_path / "kit", pad_vocab=True)
    assert any("got 60 rows" in note for note in found.notes)
    small, padded = load(path), load(tmp_path / "kit")
    tokens = torch.arange(0, 280, 7)[None]
    before, after = small(tokens).logits, padded(tokens).logits
    assert after.shape[-1] == 360
    torch.testing.assert_close(after[..., :300], before)
    assert int(after.argmax(-1).max()) < 300
    assert padded.generate_text("<|im_start|>the cat", max_new_tokens=3) is not None


def test_only_the_spec_heeds_no_tokenizer(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder({})
    (path / "tokenizer.json").write_text("{}")
    import_folder(path, tmp_path / "shape", spec_only=True)
    with pytest.raises(ValueError, match="not a tokenizer file"):
        import_folder(path, tmp_path / "kit")
