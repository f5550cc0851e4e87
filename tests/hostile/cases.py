"""Kinds of cases: each makes hostile files in a folder, by chance, and gives what is to be tried on them.

config         a family's config.json, some keys changed
spec           a spec that comes with the kit, some values or some of its text changed
declaration    a family's declaration, changed, and a config of that family
folder         a Hugging Face folder, one of its files changed
kit            a kit folder, likewise
run            the folder of a run that was stopped, one of its files changed
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.convert.references import configurations
from tests.convert.test_folders import PAGE
from tests.hostile.mutations import edited, scratched
from tests.train.runs import page as run_page
from transformer_kit import Spec, build, load
from transformer_kit.convert.declaration import FOLDER, Declaration, declarations, read
from transformer_kit.convert.export import export
from transformer_kit.convert.folder import load_folder, spec_of
from transformer_kit.convert.importing import import_folder
from transformer_kit.convert.page import variables
from transformer_kit.data.tokenizer_file import load_tokenizer
from transformer_kit.model.build import assemble_distinct
from transformer_kit.spec import files
from transformer_kit.spec.read import read as read_spec
from transformer_kit.spec.schema import RunSpec
from transformer_kit.spec.shipped import shipped
from transformer_kit.train import run

Case = Callable[[], object]


def _config(chance: Random, folder: Path) -> Case:
    declaration = chance.choice(_declared())
    config = edited(_config_of(declaration, chance), chance, sorted(variables(declaration) | {*declaration.defaults}))
    (folder / "in").mkdir()
    (folder / "in" / "config.json").write_text(json.dumps(config))
    return lambda: import_folder(folder / "in", folder / "out", spec_only=True)


def _spec(chance: Random, folder: Path) -> Case:
    source = chance.choice(sorted(shipped().glob("*/*.yaml")))
    text = source.read_text("utf-8")
    if chance.random() < 0.7:
        (folder / "page.yaml").write_text(json.dumps(edited(files.page(source)[0], chance)))
    else:
        (folder / "page.yaml").write_bytes(scratched(text.encode(), chance))

    def check() -> None:
        spec = read_spec(folder / "page.yaml")
        assert spec.hash
        assemble_distinct(spec)

    return check


def _declaration(chance: Random, folder: Path) -> Case:
    source = chance.choice(sorted(FOLDER.glob("[a-z]*.yaml")))
    config = _config_of(read(source), chance)
    text = source.read_text("utf-8")
    if chance.random() < 0.8:
        tree = edited(files.page(source)[0], chance, ["include", "derived", "when", "tensors", "or"])
        (folder / "family.yaml").write_text(json.dumps(tree))
    else:
        (folder / "family.yaml").write_bytes(scratched(text.encode(), chance))
    return lambda: spec_of(config, read(folder / "family.yaml"))


def _spoil(path: Path, chance: Random) -> None:
    content = path.read_bytes() if path.exists() else b'{"from": "x"}'
    if path.suffix == ".json" and chance.random() < 0.7:
        path.write_text(json.dumps(edited(json.loads(content), chance)))
    else:
        path.write_bytes(scratched(content, chance))


def _folder(chance: Random, folder: Path) -> Case:
    shutil.copytree(_exported(), folder / "in")
    _spoil(chance.choice(sorted((folder / "in").iterdir())), chance)

    def bring_in() -> None:
        import_folder(folder / "in", folder / "out")
        load_folder(folder / "in")
        load_tokenizer(folder / "out").encode("a text")

    return bring_in


def _kit(chance: Random, folder: Path) -> Case:
    shutil.copytree(_imported(), folder / "in")
    _spoil(chance.choice(sorted((folder / "in").iterdir())), chance)

    def send_out() -> None:
        model = load(folder / "in")
        tokenizer = load_tokenizer(folder / "in") if (folder / "in" / "tokenizer.json").exists() else None
        export(model, folder / "out", tokenizer, family="llama", beside=folder / "in")

    return send_out


def _run(chance: Random, folder: Path) -> Case:
    shutil.copytree(_stopped(), folder / "out")
    shutil.copy(_corpus(), folder / "text.txt")
    files = [p for p in sorted((folder / "out").rglob("*")) if p.suffix in (".json", ".jsonl", ".yaml", ".safetensors")]
    _spoil(chance.choice([*files, folder / "out" / "origin.json"]), chance)
    return lambda: run(RunSpec.of(run_page(_corpus(), train=_TRAIN)), folder / "out", resume=True)


KINDS: dict[str, Callable[[Random, Path], Case]] = {
    "config": _config,
    "spec": _spec,
    "declaration": _declaration,
    "folder": _folder,
    "kit": _kit,
    "run": _run,
}

_TRAIN = {"steps": 5, "batch_size": 1, "validation": 0.2}


@cache
def _home() -> Path:
    """Where the sound folders lie; gone with the process."""
    made = tempfile.TemporaryDirectory(prefix="hostile-sound-")
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _declared() -> list[Declaration]:
    """Declarations of which there are configurations, once each."""
    return [d for name, d in sorted(declarations().items()) if name == d.names[0] and _configs(d)]


def _configs(declaration: Declaration) -> list[dict[str, Any]]:
    """Tiny configurations of a family."""
    return [e["config"] for e in configurations().values() if e["model_class"] in declaration.classes]


def _config_of(declaration: Declaration, chance: Random) -> dict[str, Any]:
    return {"model_type": declaration.names[0], **chance.choice(_configs(declaration) or [{"hidden_size": 8}])}


@cache
def _exported() -> Path:
    """A small Llama with a tokenizer and everything that may stand beside it."""
    folder = _home() / "llama"
    export(build(Spec.of(PAGE)), folder)
    (folder / "tokenizer.json").write_text(json.dumps(_TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": {"content": "<s>"}}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    generation = {"eos_token_id": [1, 2], "temperature": 0.7, "top_k": 5, "top_p": 0.9, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@cache
def _imported() -> Path:
    """The same as a kit folder."""
    import_folder(_exported(), _home() / "kit")
    return _home() / "kit"


@cache
def _corpus() -> Path:
    path = _home() / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    return path


@cache
def _stopped() -> Path:
    """A run of five steps without its end."""
    folder = _home() / "run"
    run(RunSpec.of(run_page(_corpus(), train=_TRAIN)), folder)
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-00000005")
    return folder


def _token(number: int, content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": True, **flags}


_TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [_token(0, "<s>"), _token(1, "</s>")],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "_"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
        ],
    },
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "_?[a-z]+"}, "behavior": "Isolated", "invert": False},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    },
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "}]},
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {
            "<s>": 0,
            "</s>": 1,
            **{c: i for i, c in enumerate("_abcdefghijklmnopqrstuvwxyz", 2)},
            "_a": 29,
            "te": 30,
            "xt": 31,
            "text": 32,
        },
        "merges": [["_", "a"], ["t", "e"], ["x", "t"], ["te", "xt"]],
    },
}
