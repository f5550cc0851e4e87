"""`kit list` and `kit show`: every part that there is, as it is."""

from pathlib import Path

import pytest

from registry import core
from tests.cli.runner import Kit
from transformer_kit.cli import example
from transformer_kit.spec.shipped import names

PARTS = [(family, name) for family in core.families() for name in core.names(family)]


def test_list_names_every_part_and_spec(kit: Kit) -> None:
    listed = kit("list", "--json").json()["families"]
    assert {f: [p["name"] for p in s["parts"]] for f, s in listed.items()} == {
        **{f: core.names(f) for f in core.families()},
        "models": names("models"),
        "runs": names("runs"),
    }
    assert all(p["summary"] for s in listed.values() for p in s["parts"])
    text = kit("list").out
    assert all(f"\n  {name} " in text for _, name in PARTS)


def test_list_one_family(kit: Kit) -> None:
    assert list(kit("list", "norm", "--json").json()["families"]) == ["norm"]
    assert "rms_norm" in kit("list", "norm").out
    assert "tutorial" in kit("list", "models").out


def test_unknown_family_is_a_mistake(kit: Kit) -> None:
    done = kit("list", "positon")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: no family 'positon'; did you mean 'position'?\n"
    errors = kit("list", "positon", "--json")
    assert errors.code == 2
    assert errors.json()["errors"][0]["text"] == "no family 'positon'; did you mean 'position'?"


@pytest.mark.parametrize(("family", "name"), PARTS, ids=lambda v: str(v))
def test_show_tells_all_of_a_part(kit: Kit, family: str, name: str) -> None:
    shown = kit("show", f"{family}/{name}", "--json").json()
    part = core.get(family, name)
    tops = {option["name"].partition(".")[0] for option in shown["options"]}
    assert tops == set(part.Options.model_fields)
    assert all(option["documentation"] for option in shown["options"])
    path, _, line = shown["source"].rpartition(":")
    assert Path(path).name == f"{name}.py"
    assert int(line) > 0
    assert shown["documentation"].startswith(core.summary(family, name)[:40])
    text = kit("show", f"{family}/{name}").out
    assert text.startswith(f"{family}/{name}\n")
    assert shown["example"] in text


@pytest.mark.parametrize(("family", "name"), PARTS, ids=lambda v: str(v))
def test_examples_validate(family: str, name: str) -> None:
    written = example.written_out(family, name)
    assert written.pop("type") == name
    core.get(family, name).Options.model_validate(written)


@pytest.mark.parametrize(("family", "name"), PARTS, ids=lambda v: str(v))
def test_examples_pass_the_check(kit: Kit, tmp_path: Path, family: str, name: str) -> None:
    """As it is printed, below the line that it says to begin with."""
    printed = kit("show", f"{family}/{name}").out.split("\nexample, for a spec that begins with `")[1]
    begin, _, rest = printed.partition("`\n")
    (tmp_path / "my-text").write_text('{"text": "some words"}\n' * 99)
    (tmp_path / "page.yaml").write_text(f"{begin}\n{rest}")
    checked = kit("check", "page.yaml")
    assert (checked.code, checked.out) == (0, "page.yaml: good\n"), checked.err
    assert name in rest


def test_show_tells_types_defaults_and_capabilities(kit: Kit) -> None:
    rope = kit("show", "position/rope", "--json").json()
    assert rope["capabilities"] == {"acts": "rotation", "shift_invariant": True}
    assert rope["papers"][0] == "https://arxiv.org/abs/2104.09864"
    written = "{type: rope, theta: 10000.0, partial_rotary_factor: 1.0, pairing: half, reverse: false}"
    assert rope["example"] == f"model:\n  position: {written}"
    theta = rope["options"][0]
    assert (theta["name"], theta["type"], theta["required"], theta["default"]) == (
        "theta",
        "float > 0",
        False,
        1e4,
    )
    attention = kit("show", "mixer/attention", "--json").json()
    assert attention["capabilities"]["accepts"] == ["bias", "rotation"]
    assert attention["places"][0] == "model.layers.block.mixer"
    types = {option["name"]: (option["type"], option["required"]) for option in attention["options"]}
    assert types["n_heads"] == ("int >= 1", True)
    assert types["qk_norm"] == ("norm part", False)
    assert types["bias"] == ("list of q | k | v | out", False)
    assert attention["groups"].keys() == {"qkv", "scores"}


def test_a_card_of_attention_fits_a_screen_and_its_groups_have_cards(kit: Kit) -> None:
    lines = kit("show", "mixer/attention").out.splitlines()
    assert len(lines) <= 40
    assert not any("v_head_dim" in line.split() for line in lines)  # in its group's row alone
    assert "v_head_dim" in kit("show", "mixer/attention/qkv").out
    refused = kit("show", "mixer/attention/qk")
    assert refused.code == 2
    assert "no group of options 'qk'; did you mean 'qkv'?" in refused.err


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rope", "did you mean position/rope?"),
        ("position/rop", "no position 'rop'; did you mean 'rope'?"),
        ("positio/rope", "no family 'positio'; did you mean 'position'?"),
        ("position/gated", "'gated' is a part of ffn"),
        ("position/_shared", "no position '_shared'"),
        ("position/../ffn/gated", "no position '..'"),
        ("position/acme.ramp", "no plugin 'acme' is installed"),
    ],
)
def test_show_of_what_is_not_there(kit: Kit, word: str, message: str) -> None:
    done = kit("show", word, "--json")
    assert done.code == 2
    (error,) = done.json()["errors"]
    assert message in error["text"]
