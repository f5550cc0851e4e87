"""Single values replaced by `--set`, under the same rule of merging."""

import pytest

from tests.spec.pages import Pages
from transformer_kit.spec.read import read

LIST = "    pattern: [block]\n    kinds: {}\n"


def test_a_value_is_replaced_and_read_as_yaml(pages: Pages) -> None:
    model = pages.read(pages.text, ["model.d_model=64", "model.dropout=1e-1", "model.final_norm=null"]).model
    assert (model.d_model, model.dropout, model.final_norm) == (64, 0.1, None)


def test_later_ones_win(pages: Pages) -> None:
    assert pages.read(pages.text, ["model.d_model=64", "model.d_model=128"]).model.d_model == 128


def test_an_option_of_a_part_that_stands_by_its_name(pages: Pages) -> None:
    assert pages.read(pages.text, ["model.position.theta=5.0"]).model.position.theta == 5.0


def test_mappings_merge(pages: Pages) -> None:
    ffn = pages.read(pages.text, ["model.layers.block.ffn={bias: true}"]).model.layers.blocks[0].ffn
    assert (ffn.part.name, ffn.d_ff, ffn.bias) == ("gated", 48, True)


def test_the_same_name_keeps_the_options_and_another_drops_them(pages: Pages) -> None:
    same = pages.read(pages.text, ["model.layers.block.ffn=gated"])
    other = pages.read(pages.text, ["model.layers.block.ffn=mlp"])
    assert (same.model.layers.blocks[0].ffn.d_ff, same.notes) == (48, ())
    assert other.model.layers.blocks[0].ffn.part.name == "mlp"
    assert other.notes == ("model.layers.block.ffn: 'mlp' replaces 'gated'; not carried over: d_ff",)


def test_single_layers_and_new_kinds(pages: Pages) -> None:
    sets = ["model.layers.at.-1.ffn.d_ff=8", "model.layers.kinds.local.mixer.window=2", "model.layers.pattern=[local]"]
    blocks = pages.read(pages.text, sets).model.layers.blocks
    assert [(b.mixer.window, b.ffn.d_ff) for b in blocks] == [(2, 48), (2, 48), (2, 48), (2, 8)]


def test_an_item_of_a_list(pages: Pages) -> None:
    text = pages.changed("n_heads: 4", "n_heads: 4, bias: [q, k]")
    assert pages.read(text, ["model.layers.block.mixer.bias.-1=v"]).model.layers.blocks[0].mixer.bias == ("q", "v")


def test_a_part_in_a_list(pages: Pages) -> None:
    text = f"{pages.text}optimizer: {{type: adamw, lr: 1.0}}\ntrain: {{steps: 1}}\nsample: {{samplers: [top_k]}}\n"
    spec = pages.read(text, ["sample.samplers.0={type: temperature, value: 0.5}"])
    assert spec.sample.samplers[0].value == 0.5


def test_one_alias_is_changed_and_not_the_other(pages: Pages) -> None:
    text = pages.text.replace("norm", "norm") + "    kinds: {a: &k {mixer: {window: 2}}, b: *k}\n    pattern: [a, b]\n"
    blocks = pages.read(text, ["model.layers.kinds.a.mixer.window=3"]).model.layers.blocks
    assert [b.mixer.window for b in blocks] == [3, 2, 3, 2]


def test_the_whole_model_by_name(pages: Pages) -> None:
    model = pages.read(pages.text, ["model=tutorial", "model.dropout=0.0"]).model
    assert (model.d_model, model.dropout) == (512, 0.0)


def test_a_shipped_spec_takes_it_too() -> None:
    assert read("tutorial", ["model.layers.count=1"]).model.layers.blocks[1:] == ()


WRONG = {
    "model.d_mode=3": "model.d_mode: no key 'd_mode' here; did you mean 'd_model'?",
    "no.such.thing=3": "no: no key 'no' here; choose from kit, plugins, model",
    "model.layers.block.ffn.d_f=3": "model.layers.block.ffn.d_f: no option 'd_f' in 'gated'; did you mean 'd_ff'?",
    "model.layers.block.ffn={d_f: 3}": "model.layers.block.ffn.d_f: no option 'd_f' in 'gated'; did you mean 'd_ff'?",
    "model.d_model": "model.d_model: must be PATH=VALUE, such as model.d_model=64",
    "=3": "must be PATH=VALUE, such as model.d_model=64",
    "": "must be PATH=VALUE, such as model.d_model=64",
    "model..d_model=3": "model..d_model: must be PATH=VALUE, such as model.d_model=64",
    ".model=3": ".model: must be PATH=VALUE, such as model.d_model=64",
    "model.d_model.x=3": "model.d_model.x: 'model.d_model' has nothing inside, it is 32",
    "model.d_model='32'": "model.d_model: must be a whole number, got '32'",
    "model.d_model=": "model.d_model: must be a whole number, got nothing",
    "model.d_model=[1": "model.d_model: not YAML: expected ',' or ']', but got '<stream end>'",
    "model.d_model={a: 1, a: 2}": "model.d_model: 'a' is written twice, first in line 1",
    "model.position={type: rop}": "model.position: no position 'rop'; did you mean 'rope'?",
    "model.norm.eps=1e-6": "model.norm: needs `type:`, the name of a norm",
    "model.layers.at.9.ffn.d_ff=3": "model.layers.at.9: must be a layer from -4 to 3, got 9",
    "model.layers.at.--1.ffn.d_ff=3": "model.layers.at.--1: must be a layer from -4 to 3, got '--1'",
    "model.layers.at.².ffn.d_ff=3": "model.layers.at.²: must be a layer from -4 to 3, got '²'",
    "model.layers.pattern.1=block": "model.layers.pattern.1: '1' must be the number of an item, from 0 to 0",
    "model.layers.pattern.x=block": "model.layers.pattern.x: 'x' must be the number of an item, from 0 to 0",
    "model.layers.pattern.0=blok": "model.layers.pattern.0: no kind 'blok'; did you mean 'block'?",
    "model=tutorail": "model: no spec 'tutorail' comes with the kit",
    "plugins=[nowhere]": "plugins.0: plugin 'nowhere' is not installed",
    ".".join(["a"] * 62) + "=1": ".".join(["a"] * 62) + ": must be PATH=VALUE",
}


@pytest.mark.parametrize("assignment", WRONG)
def test_a_wrong_assignment_is_named(pages: Pages, assignment: str) -> None:
    (line,) = pages.wrong(pages.text + LIST, [assignment])
    assert line.startswith(f"--set: {WRONG[assignment]}")
    assert line.endswith(f" (--set {assignment})")


def test_all_wrong_assignments_are_named(pages: Pages) -> None:
    assert len(pages.wrong(pages.text, ["model", "model.d_model.x=1", "model.vocab_size=["])) == 3
