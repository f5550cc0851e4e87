"""Every mistake on a spec gets one clear error: its place, its path, what is wrong and what to choose."""

import time

import pytest

from tests.spec.pages import Pages
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read

ONE = {
    "misspelled key": (
        ("d_ff: 48", "d_f: 48"),
        "page.yaml:12:26: model.layers.block.ffn.d_f: no option 'd_f' in 'gated'; did you mean 'd_ff'?",
    ),
    "misspelled key of the spec": (("kit: 1", "kti: 1"), "page.yaml:1:1: kti: no key 'kti' here; did you mean 'kit'?"),
    "misspelled part": (
        ("gated", "gatd"),
        "page.yaml:12:7: model.layers.block.ffn: no ffn 'gatd'; did you mean 'gated'?",
    ),
    "part without a name": (
        ("type: gated, ", ""),
        "page.yaml:12:7: model.layers.block.ffn: needs `type:`, the name of a ffn (gated, mlp, moe); got only d_ff",
    ),
    "option of another part": (
        ("type: gated, d_ff: 48", "type: gated, theta: 1.0"),
        "page.yaml:12:26: model.layers.block.ffn.theta: no option 'theta' in 'gated'; "
        "choose from d_ff, activation, bias",
    ),
    "option of the part beside": (
        ("n_heads: 4", "n_heads: 4, d_ff: 3"),
        "page.yaml:11:44: model.layers.block.mixer.d_ff: no option 'd_ff' in 'attention'; it belongs to ffn 'gated'",
    ),
    "option of a part below": (
        ("position: rope", "position: rope\n  theta: 100.0"),
        "page.yaml:7:3: model.theta: no key 'theta' here; it belongs to position 'rope'",
    ),
    "option of what is around": (
        ("n_heads: 4", "n_heads: 4, residual_scale: 2.0"),
        "page.yaml:11:44: model.layers.block.mixer.residual_scale: no option 'residual_scale' in 'attention'; "
        "it belongs to the block 'pre_norm' around it",
    ),
    "option of another type": (
        ("position: rope", "position: {type: rope, base: 10.0}"),
        "page.yaml:6:26: model.position.base: no option 'base' in 'rope'; it belongs to 'sinusoidal'",
    ),
    "option of a part that has none": (
        ("position: rope", "position: {type: none, slope: 1}"),
        "page.yaml:6:26: model.position.slope: no option 'slope' in 'none'; it has none",
    ),
    "part of another family": (
        ("type: gated, d_ff: 48", "type: attention"),
        "page.yaml:12:7: model.layers.block.ffn: no ffn 'attention'; 'attention' is a part of mixer",
    ),
    "a list where a part belongs": (
        ("position: rope", "position: [rope]"),
        "page.yaml:6:3: model.position: must be the name of a position or a mapping with `type:`, got ['rope']",
    ),
    "kv heads": (
        ("n_heads: 4", "n_heads: 8, n_kv_heads: 3"),
        "page.yaml:11:7: model.layers.block.mixer: n_heads must be a multiple of n_kv_heads (3), got 8",
    ),
    "window of nothing": (
        ("n_heads: 4", "n_heads: 4, window: 0"),
        "page.yaml:11:44: model.layers.block.mixer.window: must be at least 1, got 0",
    ),
    "negative size": (("d_model: 32", "d_model: -3"), "page.yaml:4:3: model.d_model: must be at least 1, got -3"),
    "zero size": (("vocab_size: 64", "vocab_size: 0"), "page.yaml:3:3: model.vocab_size: must be at least 1, got 0"),
    "text for a number": (
        ("d_model: 32", "d_model: '32'"),
        "page.yaml:4:3: model.d_model: must be a whole number, got '32'",
    ),
    "fraction for a whole number": (
        ("d_model: 32", "d_model: 32.0"),
        "page.yaml:4:3: model.d_model: must be a whole number, got 32.0",
    ),
    "float notation for a whole number": (
        ("d_model: 32", "d_model: 1e3"),
        "page.yaml:4:3: model.d_model: must be a whole number, got 1000.0",
    ),
    "truth for a number": (
        ("d_model: 32", "d_model: true"),
        "page.yaml:4:3: model.d_model: must be a whole number, got true",
    ),
    "nothing for a number": (
        ("d_model: 32", "d_model:"),
        "page.yaml:4:3: model.d_model: must be a whole number, got nothing",
    ),
    "truth for a count": (
        ("count: 4", "count: true"),
        "page.yaml:8:5: model.layers.count: must be a whole number from 1 to 1024, got true",
    ),
    "text for a truth": (
        ("d_ff: 48", "bias: yes"),
        "page.yaml:12:26: model.layers.block.ffn.bias: must be true or false, got 'yes'",
    ),
    "infinite": (
        ("position: rope", "dropout: .nan"),
        "page.yaml:6:3: model.dropout: must be a finite number, got nan",
    ),
    "a bound that is open": (
        ("position: rope", "dropout: 1.0"),
        "page.yaml:6:3: model.dropout: must be less than 1.0, got 1.0",
    ),
    "not one of a few": (
        ("n_heads: 4", "n_heads: 4, bias: [x]"),
        "page.yaml:11:51: model.layers.block.mixer.bias.0: must be 'q', 'k', 'v' or 'out', got 'x'",
    ),
    "a name for a list": (
        ("n_heads: 4", "n_heads: 4, bias: q"),
        "page.yaml:11:44: model.layers.block.mixer.bias: must be a list, got 'q'",
    ),
    "absurd size": (
        ("d_model: 32", "d_model: 1000000000000"),
        "page.yaml:4:3: model.d_model: must be at most 1048576, got 1000000000000",
    ),
    "absurd number of layers": (
        ("count: 4", "count: 1000000"),
        "page.yaml:8:5: model.layers.count: must be a whole number from 1 to 1024, got 1000000",
    ),
    "more digits than anybody reads": (
        ("d_model: 32", "d_model: 0x" + "f" * 300),
        "page.yaml:4:3: model.d_model: must be at most 1048576, got a number of over 50 digits",
    ),
    "a number for a key": (("d_model: 32", "d_model: 32\n  5: 1"), "page.yaml:5:3: model.5: no key '5' here"),
    "a merge key": (("d_model: 32", "d_model: 32\n  <<: {a: 1}"), "page.yaml:5:3: model.<<: no key '<<' here"),
    "duplicate key": (
        ("d_model: 32", "d_model: 32\n  d_model: 33"),
        "page.yaml:5:3: model.d_model: 'd_model' is written twice, first in line 4",
    ),
    "missing key": (
        ("  max_seq_len: 16\n", ""),
        "page.yaml:2:1: model: needs 'max_seq_len': longest sequence, in tokens",
    ),
    "missing block": (("    block:", "    blok:"), "page.yaml:7:3: model.layers: needs 'block'"),
    "not a mapping": (
        ("mixer: {type: attention, n_heads: 4}", "mixer: {type: attention, n_heads: 4, scores: 3}"),
        "page.yaml:11:44: model.layers.block.mixer.scores: must be a mapping, got 3",
    ),
    "unknown version": (
        ("kit: 1", "kit: 2"),
        "page.yaml:1:1: kit: must be 1, the version of the spec language, got 2",
    ),
    "version that is true": (
        ("kit: 1", "kit: true"),
        "page.yaml:1:1: kit: must be 1, the version of the spec language, got true",
    ),
    "plugin that is not there": (
        ("kit: 1", "plugins: [nowhere]"),
        "page.yaml:1:11: plugins.0: plugin 'nowhere' is not installed",
    ),
    "part of a plugin that is not there": (
        ("type: gated", "type: nowhere.gated"),
        "page.yaml:12:7: model.layers.block.ffn: no ffn 'nowhere.gated'; no plugin 'nowhere' is installed",
    ),
    "plugin by path": (
        ("type: gated", "type: os.path:join"),
        "page.yaml:12:7: model.layers.block.ffn: no ffn 'os.path:join'; no plugin 'os' is installed",
    ),
}


@pytest.mark.parametrize("mistake", ONE)
def test_one_mistake_is_one_line_that_begins_with_its_place(pages: Pages, mistake: str) -> None:
    (old, new), message = ONE[mistake]
    lines = pages.wrong(pages.changed(old, new))
    assert lines[0].startswith(message)
    assert len(lines) == (2 if mistake == "missing block" else 1)


def test_everything_that_is_wrong_comes_at_once_and_in_order(pages: Pages) -> None:
    text = """\
modle: 1
model:
  vocab_size: -1
  d_model: '32'
  position: rop
  layers:
    count: 4
    block:
      type: pre_norm
      mixer: {type: attention, n_head: 4, window: 0}
      ffn: {type: gated, d_ff: 4.5}
    kinds:
      local: {ffn: {biass: true}}
      idle: {norm: layer_nrm}
    pattern: [local*2, blok]
    at: {9: {}, 3: {ffn: {bias: 1}}, -1: {}}
"""
    assert pages.wrong(text) == [
        "page.yaml:1:1: modle: no key 'modle' here; did you mean 'model'?",
        "page.yaml:2:1: model: needs 'max_seq_len': longest sequence, in tokens",
        "page.yaml:3:3: model.vocab_size: must be at least 1, got -1",
        "page.yaml:4:3: model.d_model: must be a whole number, got '32'",
        "page.yaml:5:3: model.position: no position 'rop'; did you mean 'rope'?",
        "page.yaml:10:7: model.layers.block.mixer: needs 'n_heads': query heads H",
        "page.yaml:10:32: model.layers.block.mixer.n_head: no option 'n_head' in 'attention'; did you mean 'n_heads'?",
        "page.yaml:10:43: model.layers.block.mixer.window: must be at least 1, got 0",
        "page.yaml:11:26: model.layers.block.ffn.d_ff: must be a whole number, got 4.5",
        "page.yaml:13:21: model.layers.kinds.local.ffn.biass: no option 'biass' in 'gated'; did you mean 'bias'?",
        "page.yaml:14:14: model.layers.kinds.idle.norm: no norm 'layer_nrm'; did you mean 'layer_norm'?",
        "page.yaml:15:24: model.layers.pattern.1: no kind 'blok'; did you mean 'block'?",
        "page.yaml:16:10: model.layers.at.9: must be a layer from -4 to 3, got 9",
        "page.yaml:16:27: model.layers.at.3.ffn.bias: must be true or false, got 1",
        "page.yaml:16:38: model.layers.at.-1: is the same layer as 3",
    ]


def test_a_mistake_in_a_block_of_many_layers_is_one_line_and_quick(pages: Pages) -> None:
    text = pages.changed("count: 4", "count: 1024").replace("d_ff: 48", "d_f: 48, bia: 1, activaton: x")
    began = time.process_time()
    assert len(pages.wrong(text)) == 3
    assert time.process_time() - began < 10


def test_missing_plugins_are_named_one_by_one(pages: Pages) -> None:
    lines = pages.wrong(pages.text + "plugins: [one, 3, two]\n")
    assert [line.split(";")[0].split(" (")[0] for line in lines] == [
        "page.yaml:13:11: plugins.0: plugin 'one' is not installed",
        "page.yaml:13:16: plugins.1: must be text, got 3",
        "page.yaml:13:19: plugins.2: plugin 'two' is not installed",
    ]


@pytest.mark.parametrize(
    ("name", "what"), [("gone.yaml", "no such file"), ("folder", "is a folder"), ("x" * 999, "no")]
)
def test_a_file_that_is_not_there(pages: Pages, name: str, what: str) -> None:
    (pages.folder / "folder").mkdir()
    with pytest.raises(SpecError, match=what) as caught:
        read(name)
    assert "the specs that come with the kit" in str(caught.value)


def test_a_file_that_may_not_be_read(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pages.write(pages.text)
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        with pytest.raises(SpecError, match=r"^page\.yaml: cannot be read: Permission denied$"):
            read("page.yaml")
    else:
        pytest.skip("this user reads everything")
