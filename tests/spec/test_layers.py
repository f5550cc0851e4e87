"""The one mechanism for stacks of unequal layers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.spec.pages import Pages
from transformer_kit.spec.layers import blocks_of, fold

MORE = """\
    kinds:
      local: {mixer: {window: 3}}
      wide: {ffn: {d_ff: 64}}
"""


def layers(pages: Pages, more: str, count: int = 4) -> list[Any]:
    """The blocks of the good page with `more` below its layers."""
    text = pages.changed("count: 4", f"count: {count}")
    return list(pages.read(text + more).model.layers.blocks)


def test_without_a_pattern_all_layers_are_the_block(pages: Pages) -> None:
    assert [(b.mixer.window, b.ffn.d_ff) for b in layers(pages, "")] == [(None, 48)] * 4


def test_a_pattern_is_repeated(pages: Pages) -> None:
    blocks = layers(pages, f"{MORE}    pattern: [local*2, wide, block]\n", 8)
    assert [(b.mixer.window, b.ffn.d_ff) for b in blocks] == [(3, 48), (3, 48), (None, 64), (None, 48)] * 2


def test_single_layers_are_changed_last(pages: Pages) -> None:
    blocks = layers(pages, f"{MORE}    pattern: [local]\n    at: {{0: {{mixer: {{window: 9}}}}, -1: {{ffn: mlp}}}}\n")
    assert [b.mixer.window for b in blocks] == [9, 3, 3, 3]
    assert [b.ffn.part.name for b in blocks] == ["gated", "gated", "gated", "mlp"]


WRONG = {
    "unknown kind": (
        "    pattern: [loca]\n",
        "page.yaml:16:15: model.layers.pattern.0: no kind 'loca'; did you mean 'local'?",
    ),
    "not a multiple": (
        "    pattern: [local, block*2]\n",
        "page.yaml:16:5: model.layers.pattern: count (4) must be a multiple of the pattern's length, got 3",
    ),
    "too long": ("    pattern: [block*8]\n", "page.yaml:16:5: model.layers.pattern: count (4) must be a multiple of"),
    "empty pattern": ("    pattern: []\n", "page.yaml:16:5: model.layers.pattern: must name at least one kind"),
    "none of a kind": ("    pattern: [local*0]\n", "page.yaml:16:15: model.layers.pattern.0: must be a kind or kind*n"),
    "endless": (
        "    pattern: [local*9999]\n",
        "page.yaml:16:15: model.layers.pattern.0: must be a kind or kind*n, of at most 1024",
    ),
    "not a word": ("    pattern: [{a: 1}]\n", "page.yaml:16:15: model.layers.pattern.0: must be a kind or kind*n"),
    "not a list": ("    pattern: local\n", "page.yaml:16:5: model.layers.pattern: must be a list, got 'local'"),
    "at the end": ("    at: {4: {}}\n", "page.yaml:16:10: model.layers.at.4: must be a layer from -4 to 3, got 4"),
    "before the start": (
        "    at: {-5: {}}\n",
        "page.yaml:16:10: model.layers.at.-5: must be a layer from -4 to 3, got -5",
    ),
    "at a word": (
        "    at: {last: {}}\n",
        "page.yaml:16:10: model.layers.at.last: must be a layer from -4 to 3, got 'last'",
    ),
    "twice": ("    at: {-1: {}, 3: {}}\n", "page.yaml:16:18: model.layers.at.3: is the same layer as -1"),
    "at nothing": (
        "    at: {1: }\n",
        "page.yaml:16:10: model.layers.at.1: must be a mapping of changes to the layer, got nothing",
    ),
    "at is a list": ("    at: [1]\n", "page.yaml:16:5: model.layers.at: must be a mapping, got [1]"),
    "unknown key": (
        "    patern: [local]\n",
        "page.yaml:16:5: model.layers.patern: no key 'patern' in layers; did you mean 'pattern'?",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_among_the_keys(pages: Pages, name: str) -> None:
    more, message = WRONG[name]
    lines = pages.wrong(pages.text + MORE + more)
    assert len(lines) == 1
    assert lines[0].startswith(message)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("{block: {}}", "page.yaml:13:13: model.layers.kinds.block: a kind needs a name of its own"),
        (
            "{1: {}}",
            "page.yaml:13:13: model.layers.kinds.1: a kind needs a name of its own, of letters, digits and _, got 1",
        ),
        ("{a*2: {}}", "page.yaml:13:13: model.layers.kinds.a*2: a kind needs a name of its own"),
        ("{a: mlp}", "page.yaml:13:13: model.layers.kinds.a: must be a mapping of changes to `block`, got 'mlp'"),
        ("[a]", "page.yaml:13:5: model.layers.kinds: must be a mapping, got ['a']"),
        ("{a: {ffn: {bias: 1}}}", "page.yaml:13:23: model.layers.kinds.a.ffn.bias: must be true or false, got 1"),
        ("{a: {type: pre_nrm}}", "page.yaml:13:13: model.layers.kinds.a: no block 'pre_nrm'; did you mean 'pre_norm'?"),
    ],
)
def test_a_mistake_in_a_kind_whether_it_is_used_or_not(pages: Pages, kinds: str, message: str) -> None:
    lines = pages.wrong(f"{pages.text}    kinds: {kinds}\n")
    assert len(lines) == 1
    assert lines[0].startswith(message)


def test_a_kind_of_another_type_starts_from_nothing(pages: Pages) -> None:
    lines = pages.wrong(
        f"{pages.text}    kinds: {{other: {{type: parallel, ffn: mlp}}}}\n    pattern: [other, block]\n"
    )
    assert lines == [
        "page.yaml:13:13: model.layers.kinds.other: needs 'mixer': the token mixer, such as attention "
        "('parallel' replaces the type of `block`, and nothing is carried over)"
    ]


def test_notes_tell_of_lost_options_and_idle_kinds(pages: Pages) -> None:
    more = "    kinds: {dense: {ffn: mlp}, idle: {}}\n    pattern: [dense, block]\n    at: {-1: {mixer: {window: 2}}}\n"
    spec = pages.read(pages.text + more)
    assert spec.notes == (
        "page.yaml:13:26: model.layers.kinds.dense.ffn: 'mlp' replaces 'gated'; not carried over: d_ff",
        "page.yaml:13:32: no layer is of the kind 'idle'",
    )


BLOCKS = st.lists(
    st.builds(
        lambda block, norm, ffn: {"type": block, "norm": norm, "ffn": ffn},
        st.sampled_from(["p", "q"]),
        st.none() | st.just({"type": "rms"}),
        st.sampled_from([{"type": "gated", "d_ff": 1}, {"type": "gated", "d_ff": 2}, {"type": "mlp"}]),
    ),
    min_size=1,
    max_size=12,
)


@given(BLOCKS)
def test_folded_layers_expand_to_the_same(blocks: list[Any]) -> None:
    folded, wrong = fold(blocks), []
    assert set(folded) <= {"count", "block", "kinds", "pattern"}
    assert blocks_of(folded, wrong) == blocks
    assert not wrong


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 1)), min_size=1, max_size=6))
def test_blocks_that_do_not_merge_are_written_out(rest: list[Any]) -> None:
    blocks = [{"type": "p", "table": table} for table in rest]
    folded = fold(blocks)
    assert (folded["blocks"] if "blocks" in folded else blocks_of(folded, [])) == blocks


def test_folding_finds_the_commonest_block_and_the_shortest_pattern() -> None:
    local, full = {"type": "p", "window": 3}, {"type": "p", "window": None}
    assert fold([local, local, full] * 4) == {
        "count": 12,
        "block": local,
        "kinds": {"kind_1": {"window": None}},
        "pattern": ["block*2", "kind_1"],
    }


@pytest.mark.parametrize("block", ["", "    block: pre_norm\n", "    block: [a]\n"])
def test_kinds_without_a_block_to_lie_on(pages: Pages, block: str) -> None:
    text = (
        pages.text[: pages.text.index("    block:")] + block + "    kinds: {local: {ffn: mlp}}\n    pattern: [local]\n"
    )
    first, *_ = pages.wrong(text)
    if block:
        assert first.startswith("page.yaml:9:5: model.layers.block: must be a mapping with `type:`, a mixer and an ffn")
    else:
        assert first == "page.yaml:7:3: model.layers: needs 'block'"
