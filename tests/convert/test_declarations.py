"""Declarations that are wrong: told when they are read, each fault with its line; those of the kit are right."""

from pathlib import Path

import pytest

from transformer_kit.convert.declaration import FOLDER, read
from transformer_kit.convert.schema import check
from transformer_kit.spec import files
from transformer_kit.spec.errors import SpecError

TEXT = """\
kit: 1
names: [heron]
classes: [HeronForCausalLM]
include: [rope]
count: n_layers
defaults: {n_kv_heads: $n_heads, scale: {$: dim, fn: rsqrt}}
derived: {kind: {first: $dense, then: dense, else: sparse}}
model:
  vocab_size: $vocab_size
  d_model: $dim
  norm: {type: rms_norm, eps: $norm_eps}
block:
  ffn: {type: gated, activation: {$: act, map: {silu: silu}}, d_ff: {$: hidden, times: ratio}}
when:
  qk_norm:
    "true": {block: {mixer: {scale: 1.0}}}
    "false": {tensors: {a.weight: norm.weight}}
each:
  kind: {dense: {}, sparse: {}}
only: {use_bias: [false]}
never: [{a: 1, b: 2}]
tensors:
  tok.weight: embedding.table.weight
  qkv: {theirs: ["b.{i}.qkv"], ours: ["layers.{i}.q", "layers.{i}.k"], ops: [transpose, {split: n_heads}]}
"""

WRONG = [
    ("kit: 1", "kit: 7", "1:1: kit: must be 1, got 7"),
    ("names: [heron]", "names: heron", "2:1: names: must be"),
    ("names: [heron]", "names: []", "2:1: names: must hold at least 1, got 0"),
    ("names: [heron]\n", "", "1:1: needs 'names', here or in an included fragment"),
    ("classes:", "clases:", "3:1: clases: no key 'clases' here; did you mean 'classes'"),
    ("include: [rope]", "include: [ropes]", "4:11: include.0: no fragment 'ropes'"),
    ("fn: rsqrt", "fn: rsqr", "6:50: defaults.scale.fn: no function 'rsqr'; did you mean 'rsqrt'"),
    ("fn: rsqrt", "fun: rsqrt", "6:50: defaults.scale.fun: no key 'fun' here; did you mean 'fn'"),
    ("first: $dense", "frist: $dense", "7:18: derived.kind.frist: no key 'frist' here; did you mean 'first'"),
    ("first: $dense", "first: $dense, every: 2", "7:11: derived.kind: must have one of first, every"),
    (", else: sparse", "", "7:11: derived.kind: first needs then and else"),
    ("{first: $dense, then: dense, else: sparse}", "3", "7:11: derived.kind: must be a mapping, got 3"),
    ("  norm: {", "  nrom: {", "11:3: model.nrom: no key 'nrom' in a model; did you mean 'norm'"),
    ("model:\n", "model: 3\nwrite:\n", "8:1: model: must be a mapping, got 3"),
    ("map: {silu: silu}", "map: silu", "13:43: block.ffn.activation.map: must be a mapping, got 'silu'"),
    ("map: {silu: silu}", "map: {silu: silu}, times: b", "13:22: block.ffn.activation: a variable must have one of"),
    ("times: ratio", "power: -1", "13:63: block.ffn.d_ff: power needs times; give times or remove power"),
    ("times: ratio", "times: 3", "13:81: block.ffn.d_ff.times: must be text, got 3"),
    ("{block: {mixer: {s", "{blok: {mixer: {s", "16:14: when.qk_norm.true.blok: no key 'blok' here; did you mean"),
    ("{block: {mixer: {scale: 1.0}}}", "{model: {nrom: a}}", "16:22: when.qk_norm.true.model.nrom: no key"),
    ('"false": {tensors: {a.weight: norm.weight}}', '"false": 3', "17:5: when.qk_norm.false: must be a mapping, got 3"),
    ("{a.weight: norm.weight}", "{a.weight: {theirs: [a]}}", "17:25: when.qk_norm.false.tensors.a.weight: needs 'ours"),
    ("dense: {}", "dense: 3", "19:10: each.kind.dense: must be"),
    ("use_bias: [false]", "use_bias: false", "20:8: only.use_bias: must be"),
    ("[{a: 1, b: 2}]", "[a]", "21:9: never.0: must be"),
    ("transpose, {", "transpos, {", "24:78: tensors.qkv.ops.0: no operation 'transpos'; did you mean 'transpose'"),
    ("{split: n_heads}", "split", "24:89: tensors.qkv.ops.1: operation 'split' takes a number"),
    ("{split: n_heads}", "{split: 0}", "24:89: tensors.qkv.ops.1: operation 'split' takes a number from 1 on"),
    ("{split: n_heads}", "{stack: 2}", "24:89: tensors.qkv.ops.1: operation 'stack' takes no number, got 2"),
    ("{split: n_heads}", "3", "24:89: tensors.qkv.ops.1: must be an operation"),
    ("b.{i}.qkv", "b.{l}.qkv", "24:18: tensors.qkv.theirs.0: {l} is no placeholder"),
    ("tok.weight: embedding", "tok.{l}.weight: embedding", "23:3: tensors.tok.{l}.weight"),
    ("embedding.table.weight", "embedding.{t}.weight", "23:3: tensors.tok.weight: must be a mapping"),
    ("ours: [", "our: [", "24:32: tensors.qkv.our: no key 'our' here; did you mean 'ours'"),
    ("kit: 1", "kit: 1\nkit: 1", "2:1: kit: 'kit' is written twice"),
    ("kit: 1", "kit: [", "not YAML"),
]  # fmt: skip


def refused(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize(("old", "new", "told"), WRONG, ids=[f"{new[:40]!r} for {old[:40]!r}" for old, new, _ in WRONG])
def test_what_is_wrong_is_told_where_it_stands(old: str, new: str, told: str, tmp_path: Path) -> None:
    assert TEXT.count(old) == 1
    (tmp_path / "heron.yaml").write_text(TEXT.replace(old, new))
    message = refused(tmp_path / "heron.yaml")
    assert f"{tmp_path / 'heron.yaml'}:" in message
    assert told in message


def test_what_is_right_is_read(tmp_path: Path) -> None:
    (tmp_path / "heron.yaml").write_text(TEXT)
    assert read(tmp_path / "heron.yaml").names == ["heron"]


def test_all_at_once(tmp_path: Path) -> None:
    text = TEXT.replace("kit: 1", "kit: 7").replace("{block: {m", "{blok: {m").replace("transpose, {", "transpos, {")
    (tmp_path / "heron.yaml").write_text(text)
    assert [line.split(":")[1] for line in refused(tmp_path / "heron.yaml").splitlines()] == ["1", "16", "24"]


def test_a_fault_in_a_fragment_is_told_there(tmp_path: Path) -> None:
    (tmp_path / "_own.yaml").write_text("kit: 1\ninertt: [a]\n")
    (tmp_path / "heron.yaml").write_text(TEXT.replace("[rope]", "[rope, own]"))
    assert "_own.yaml:2:1: inertt: no key 'inertt' here; did you mean 'inert'" in refused(tmp_path / "heron.yaml")


def test_fragments_that_include_each_other(tmp_path: Path) -> None:
    (tmp_path / "_one.yaml").write_text("kit: 1\ninclude: [two]\n")
    (tmp_path / "_two.yaml").write_text("kit: 1\ninclude: [one]\n")
    (tmp_path / "heron.yaml").write_text(TEXT.replace("[rope]", "[one]"))
    assert "_two.yaml:2:11: include.0: 'one' includes itself" in refused(tmp_path / "heron.yaml")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_those_of_the_kit(path: Path) -> None:
    check(*files.page(path))
    if not path.name.startswith("_"):
        assert read(path).classes
