"""The registry: names are files, getting imports one, registrations keep to their names and can be undone."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from registry import core
from registry.contracts import FFN, Activation


def python(script: str, root: Path) -> Any:
    """What `script` prints, as JSON, in an interpreter of its own that finds `registry` in `root`."""
    run = subprocess.run(
        [sys.executable, "-c", f"import json, sys\nfrom registry import core\n{script}"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def part_of(base: type, name: str = "Made") -> Any:
    """A new class of a family, with its own identity."""
    return type(name, (base,), {"__module__": __name__, "__doc__": "Made by a test.", "__qualname__": name})


# ------------------------------------------------------------------ names are files


def test_families_are_folders_and_names_are_files() -> None:
    folders = {p.name for p in core.ROOT.iterdir() if (p / "__init__.py").is_file()}
    assert set(core.families()) == folders
    for family in folders:
        files = {p.stem for p in (core.ROOT / family).glob("*.py") if not p.stem.startswith("_")}
        assert {name for name in core.names(family) if "." not in name} == files


def test_every_part_can_be_had_and_says_what_it_is() -> None:
    for family in core.families():
        assert core.family_summary(family)
        for name in core.names(family):
            part = core.get(family, name)
            assert (part.family, part.name) == (family, name)
            assert part.__module__ == f"registry.{family}.{name}"
            assert core.summary(family, name) == part_docstring(family, name)
            assert core.origin(family, name) == str(core.ROOT / family / f"{name}.py")


def part_docstring(family: str, name: str) -> str:
    text = sys.modules[f"registry.{family}.{name}"].__doc__
    assert text
    return text.splitlines()[0]


def test_listing_imports_no_torch_and_getting_imports_one_file() -> None:
    script = """
for family in core.families():
    core.family_summary(family)
    for name in core.names(family):
        core.summary(family, name), core.origin(family, name), core.elsewhere(family, name)
listed = sorted(m for m in sys.modules if m.startswith(("registry.", "torch", "pydantic")))
core.get("activation", "relu")
print(json.dumps([listed, sorted(m for m in sys.modules if m.startswith("registry.") and m.count(".") == 2)]))
"""
    listed, parts = python(script, core.ROOT.parent)
    assert listed == ["registry.core", "registry.plugins", "registry.words"]
    assert parts == ["registry.activation.relu"]


def test_a_broken_file_breaks_only_its_own_name(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    folder = shutil.copytree(core.ROOT, tmp_path / "registry", ignore=ignore) / "activation"
    good = (folder / "relu.py").read_text("utf-8")
    for name, text in {
        "syntax": '"""Half a line."""\nclass',
        "raises": f'{good}\nraise KeyError("after registering")\n',
        "leaves": "import sys\nsys.exit(3)\n",
        "silent": '"""Registers nothing."""\n',
        "binary": "\udcff",
        "Upper": good,
    }.items():
        (folder / f"{name}.py").write_bytes(text.encode("utf-8", "surrogateescape"))
    script = """
def outcome(name):
    try:
        return core.get("activation", name).__name__
    except core.RegistryError as error:
        return f"{type(error).__name__}: {error}"
names = core.names("activation")
first, second = ({n: outcome(n) for n in (*names, "Upper")} for _ in range(2))
print(json.dumps([first == second, first, {n: core.summary("activation", n) for n in names}]))
"""
    same, outcomes, summaries = python(script, tmp_path)
    assert same
    assert summaries["syntax"].startswith("broken: ")
    assert summaries["binary"].startswith("broken: ")
    assert outcomes.pop("syntax").startswith("BrokenPart: activation 'syntax' cannot be imported: SyntaxError")
    assert outcomes.pop("raises").startswith("BrokenPart: activation 'raises' cannot be imported: KeyError")
    assert outcomes.pop("leaves") == "BrokenPart: activation 'leaves' cannot be imported: SystemExit: 3"
    assert "binary" in outcomes.pop("binary")
    assert outcomes.pop("silent").endswith("silent.py registers no part: @register is missing")
    assert outcomes.pop("Upper").startswith("UnknownPart: no activation 'Upper'")
    assert set(outcomes) == set(core.names("activation"))
    assert not [text for text in outcomes.values() if ":" in text]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "__init__",
        "_shared",
        "../activation/relu",
        "relu.py",
        "registry.activation.relu",
        "os:system",
        "relu\n",
    ],
)
def test_a_name_is_never_a_place(name: str) -> None:
    with pytest.raises(core.UnknownPart):
        core.get("activation", name)


@pytest.mark.parametrize("family", ["", ".", "..", "activation/", "__pycache__", "core", "activation\n"])
def test_a_family_is_never_a_place(family: str) -> None:
    for ask in (core.names, core.family_summary, lambda f: core.get(f, "relu")):
        with pytest.raises(core.UnknownFamily):
            ask(family)


def test_unknown_names_come_with_a_suggestion() -> None:
    with pytest.raises(core.UnknownPart, match=r"^no activation 'gellu'; did you mean 'gelu'\?$"):
        core.get("activation", "gellu")
    with pytest.raises(core.UnknownFamily, match=r"^no family 'activations'; did you mean 'activation'\?$"):
        core.get("activations", "gelu")
    with pytest.raises(core.UnknownPart, match=r"^no position 'zzz'; choose from alibi, "):
        core.get("position", "zzz")


def test_a_part_of_another_family_is_pointed_out() -> None:
    with pytest.raises(core.UnknownPart, match=r"^no ffn 'gelu'; 'gelu' is a part of activation$"):
        core.get("ffn", "gelu")
    assert core.elsewhere("activation", "none") == ["norm", "output_gate", "position", "query_scaling", "scaling"]


# ------------------------------------------------------------------ registering in this process


def test_a_registered_class_can_be_had_until_its_scope_ends() -> None:
    made = part_of(Activation)
    with core.scope():
        assert core.register("my.made")(made) is made
        assert core.get("activation", "my.made") is made
        assert made.name == "my.made"
        assert "my.made" in core.names("activation")
        assert __file__ in core.origin("activation", "my.made")
        assert __file__ in core.summary("activation", "my.made")
        with pytest.raises(core.UnknownPart, match=r"did you mean 'my\.made'"):
            core.get("activation", "my.mode")
        with pytest.raises(core.UnknownPart, match=r"'my\.made' is a part of activation"):
            core.get("ffn", "my.made")
    assert "my.made" not in core.names("activation")
    with pytest.raises(core.UnknownPart):
        core.get("activation", "my.made")


def test_a_scope_brings_back_what_it_found_and_keeps_the_core() -> None:
    with core.scope():
        outer, again = part_of(Activation), part_of(Activation)
        core.register("my.made")(outer)
        with suppress(KeyError), core.scope():
            core.register("my.made")(again)
            assert core.get("activation", "my.made") is again
            core.register("my.other")(part_of(Activation, "Other"))
            relu = core.get("activation", "relu")
            raise KeyError
        assert core.get("activation", "my.made") is outer
        assert "my.other" not in core.names("activation")
        assert core.get("activation", "relu") is relu


def test_running_a_cell_again_replaces_its_class() -> None:
    with core.scope():
        first, second = part_of(Activation), part_of(Activation)
        core.register("my.made")(first)
        core.register("my.made")(second)
        assert core.get("activation", "my.made") is second


def test_two_classes_with_one_name_are_refused_with_both_origins() -> None:
    with core.scope():
        core.register("my.made")(part_of(Activation, "One"))
        with pytest.raises(core.DuplicatePart) as caught:
            core.register("my.made")(part_of(Activation, "Two"))
        assert f"{__file__} (One)" in str(caught.value)
        assert f"{__file__} (Two)" in str(caught.value)
        core.register("my.made")(part_of(FFN, "Two"))  # families do not share names


def test_one_class_with_two_names_is_refused() -> None:
    with core.scope():
        made = part_of(Activation)
        core.register("my.made")(made)
        with pytest.raises(core.DuplicatePart, match=r"is activation 'my.made' already; 'my.second' needs a class"):
            core.register("my.second")(made)
        core.register("my.third")(part_of(made, "Child"))


@pytest.mark.parametrize("name", ["made", "gelu", "My.made", "my.Made", "my.", ".made", "my.deep.made", "my made", ""])
def test_names_outside_the_core_have_a_namespace(name: str) -> None:
    with core.scope(), pytest.raises(core.RegistryError, match=r"choose 'namespace\.name'"):
        core.register(name)(part_of(Activation))


def test_a_bare_register_belongs_in_a_file_of_the_registry() -> None:
    with pytest.raises(core.RegistryError, match=r"belongs in a file of registry/activation/.*@register\('my\.made'\)"):
        core.register(part_of(Activation))


def test_what_is_of_no_family_is_refused() -> None:
    for register in (core.register, core.register("my.made")):
        with pytest.raises(core.RegistryError, match="belongs to no family"):
            register(type("Made", (torch.nn.Module,), {}))


def test_parts_active_in_one_context_are_not_in_the_next() -> None:
    with pytest.raises(core.PluginError, match="plugin 'ghost' is not installed"), core.activate(frozenset({"ghost"})):
        pytest.fail("it became active")
    assert core.active() == frozenset()
