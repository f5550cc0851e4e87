"""Installed plugins: used when the spec lists them, harmless when not, and clear about what is wrong with them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from registry import core, plugins
from registry.contracts import Activation
from transformer_kit.model.build import build
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read
from transformer_kit.spec.schema import Spec


def page(listed: list[Any], ffn: Any = "mlp", position: Any = "none") -> dict[str, Any]:
    block = {"type": "pre_norm", "mixer": {"type": "attention", "n_heads": 2}, "ffn": ffn}
    layers = {"count": 2, "block": block}
    model = {"vocab_size": 11, "d_model": 8, "max_seq_len": 16, "position": position, "layers": layers}
    return {"plugins": listed, "model": model}


def bends(activation: str) -> dict[str, Any]:
    return {"type": "mlp", "activation": activation}


def refusal(value: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        Spec.of(value)
    return str(caught.value)


def imported() -> list[str]:
    return [name for name in sys.modules if "_parts" in name and not name.startswith("tests.")]


def test_listed_parts_validate_build_run_and_read_back(shop: Path) -> None:
    ffn = {"type": "acme.bottleneck", "width": 4}
    spec = Spec.of(page(["acme"], ffn=ffn, position={"type": "acme.ramp", "slope": 0.5}))
    model = build(spec)
    assert [type(layer.ffn).__name__ for layer in model.layers] == ["Bottleneck", "Bottleneck"]
    assert model.layers[0].ffn.activation.slope.item() == 1.0
    loss = model(torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]])).loss
    loss.backward()
    assert model.layers[1].ffn.activation.slope.grad is not None
    assert len(model.generate([[1, 2], [3]], max_new_tokens=3)) == 2
    assert Spec.of(spec.resolved()) == spec


def test_position_of_a_plugin_acts(shop: Path) -> None:
    flat, steep = (build(Spec.of(page(["acme"], position={"type": "acme.ramp", "slope": s}))) for s in (0.1, 2.0))
    tokens = torch.tensor([[1, 1, 1]])
    assert not torch.allclose(flat.eval()(tokens).logits, steep.eval()(tokens).logits)


def test_a_fresh_interpreter_finds_them_without_importing_torch_or_them(shelves: dict[str, Path]) -> None:
    script = """
import json, sys
from registry import core
outside = core.names("activation")
with core.activate(frozenset({"acme"})):
    inside = core.names("activation")
    about = core.summary("activation", "acme.swish")
early = sorted({"torch", "acme_parts"} & set(sys.modules))
with core.activate(frozenset({"acme"})):
    part = core.get("activation", "acme.swish")
print(json.dumps([sorted(set(inside) - set(outside)), about, early, part.__module__, part.name]))
"""
    path = os.pathsep.join([str(shelves["shop"]), str(Path(core.__file__).parents[1])])
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    about = "from distribution 'acme-parts' (acme_parts.swish:Swish)"
    assert json.loads(run.stdout) == [["acme.swish"], about, [], "acme_parts.swish", "acme.swish"]


def test_listing_and_describing_import_nothing(shop: Path) -> None:
    assert not [name for name in core.names("activation") if "." in name]
    with core.activate(frozenset({"acme", "rotten"})):
        assert "acme.swish" in core.names("activation")
        assert "rotten.raises" in core.names("activation")
        assert "acme-parts" in core.origin("activation", "acme.swish")
        assert "rotten-parts" in core.summary("activation", "rotten.exits")
    assert core.active() == frozenset()
    assert not imported()


def test_installed_but_not_listed(shop: Path) -> None:
    text = refusal(page([], ffn=bends("acme.swish")))
    assert "activation 'acme.swish' belongs to plugin 'acme', which is installed and not listed" in text
    assert "add 'acme' under `plugins:`" in text
    assert not imported()


def test_a_part_used_by_one_spec_stays_unseen_by_the_next(shop: Path) -> None:
    Spec.of(page(["acme"], ffn=bends("acme.swish")))
    assert "acme.swish" not in core.names("activation")
    assert "not listed" in refusal(page(["rotten"], ffn=bends("acme.swish")))


def test_listed_but_not_installed(shop: Path) -> None:
    text = refusal(page(["ghost"]))
    assert "plugin 'ghost' is not installed (installed: acme, rotten, thief)" in text


def test_named_but_neither_listed_nor_installed(shop: Path) -> None:
    assert "no activation 'ghost.boo'; no plugin 'ghost' is installed" in refusal(page([], ffn=bends("ghost.boo")))


def test_a_misspelled_part_of_a_listed_plugin(shop: Path) -> None:
    assert "no activation 'acme.swihs'; did you mean 'acme.swish'?" in refusal(page(["acme"], bends("acme.swihs")))
    assert "'acme.ramp' is a part of position" in refusal(page(["acme"], bends("acme.ramp")))


@pytest.mark.parametrize("name", ["", "Acme", "acme.swish", "../acme", "my"])
def test_a_plugin_is_a_namespace_and_nothing_else(shop: Path, name: str) -> None:
    assert f"plugin '{name}' is not installed" in refusal(page([name]))


@pytest.mark.parametrize(
    ("listed", "reason"), [("acme", "must be a list"), ([3], "must be text"), ({"acme": True}, "must be a list")]
)
def test_plugins_is_a_list_of_names(shop: Path, listed: Any, reason: str) -> None:
    assert reason in refusal(page(listed))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "cannot be imported: RuntimeError: the shelf gave way"),
        ("exits", "cannot be imported: SystemExit: no thanks"),
        ("missing", "cannot be imported: ModuleNotFoundError: No module named 'rotten_parts.nowhere'"),
        ("nameless", "cannot be imported: AttributeError"),
        ("stray", "offers activation 'rotten.stray', which is not a part of that family"),
        ("made", "offers activation 'rotten.made', which is not a part of that family"),
        ("misfiled", "no activation 'rotten.misfiled'; 'rotten.misfiled' is a part of activations"),
    ],
)
def test_a_broken_part_breaks_only_its_own_name(shop: Path, name: str, reason: str) -> None:
    for _ in range(2):  # what failed once is not taken for good the second time
        text = refusal(page(["rotten", "acme"], ffn=bends(f"rotten.{name}")))
        assert reason in text
        assert name == "misfiled" or "distribution 'rotten-parts'" in text
    Spec.of(page(["rotten", "acme"], ffn=bends("rotten.fresh")))
    Spec.of(page(["rotten", "acme"], ffn=bends("acme.swish")))


def test_one_class_has_one_name(shop: Path) -> None:
    Spec.of(page(["rotten"], ffn=bends("rotten.fresh")))
    assert "is activation 'rotten.fresh' already" in refusal(page(["rotten"], ffn=bends("rotten.twin")))


def test_a_plugin_that_claims_a_bare_name_is_refused_and_cannot_hide_the_core(shop: Path) -> None:
    text = refusal(page(["thief"]))
    assert "distribution 'thief-parts' (thief_parts:GELU) claims the name 'gelu' in activation" in text
    assert core.get("activation", "gelu").__module__ == "registry.activation.gelu"
    assert core.origin("activation", "gelu").endswith("gelu.py")
    assert not imported()


def test_two_distributions_in_one_namespace_are_refused(
    shop: Path, shelves: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(shelves["corner"]))
    plugins.all_entries.cache_clear()
    text = refusal(page(["acme"], ffn=bends("acme.swish")))
    assert "plugin namespace 'acme' is claimed by two distributions: acme-parts, squatter-parts" in text
    assert not imported()
    Spec.of(page(["rotten"], ffn=bends("rotten.fresh")))


def test_a_second_copy_of_a_distribution_is_no_second_claim(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shop, tmp_path / "copy")
    monkeypatch.syspath_prepend(str(tmp_path / "copy"))
    plugins.all_entries.cache_clear()
    assert Spec.of(page(["acme"], ffn=bends("acme.swish")))


def test_a_class_of_this_process_cannot_take_a_plugins_name(shop: Path) -> None:
    @core.register("acme.swish")
    class Swish(Activation):
        """Another."""

    assert "not listed" in refusal(page([], ffn=bends("acme.swish")))


def test_the_error_says_which_line(shop: Path, tmp_path: Path) -> None:
    lines = [
        "plugins: [ghost]",
        "model:",
        "  vocab_size: 11",
        "  d_model: 8",
        "  max_seq_len: 16",
        "  layers:",
        "    count: 1",
        "    block:",
        "      type: pre_norm",
        "      mixer: {type: attention, n_heads: 2}",
        "      ffn: {type: mlp, activation: acme.swish}",
    ]
    path = tmp_path / "spec.yaml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(SpecError, match=rf"{re.escape(str(path))}:1:\d+: .*'ghost' is not installed"):
        read(path)
    path.write_text("\n".join(lines[1:]) + "\n", "utf-8")
    with pytest.raises(SpecError, match=rf"{re.escape(str(path))}:10:\d+: .*'acme' under `plugins:`"):
        read(path)
    path.write_text("\n".join(["plugins: [acme]", *lines[1:]]) + "\n", "utf-8")
    assert read(path).plugins == ("acme",)
