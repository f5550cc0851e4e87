"""The card as text, HTML, JSON and for a terminal."""

import json
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from rich.console import Console
from torch import Tensor

from registry import core
from registry.contracts import Norm
from transformer_kit import build
from transformer_kit.cost.card import Card, card
from transformer_kit.spec.schema import Spec

Page = Callable[..., Spec]


@pytest.fixture
def tagged() -> Iterator[None]:
    """A part with an option of free text."""
    with core.scope():

        @core.register("test.tagged")
        class Tagged(Norm):
            class Options(Norm.Options):
                tag: str = ""

            def forward(self, x: Tensor) -> Tensor:
                return x

        yield


@pytest.fixture
def patterned(page: Page) -> Card:
    """The card of a stack of two kinds and a last layer of its own."""
    layers = {
        "count": 7,
        "kinds": {"local": {"mixer": {"window": 16}}},
        "pattern": ["local"],
        "at": {1: {"mixer": {"window": None}}, 3: {"mixer": {"window": None}}, 6: {"ffn": {"d_ff": 384}}},
    }
    return card(page(layers=layers), seq=64)


def test_layers_are_folded_by_kind(patterned: Card) -> None:
    stack = [node for node in patterned.parts if node.label.startswith("layer")]
    assert [(n.label, n.count) for n in stack] == [("layers 0, 2, 4-5", 4), ("layers 1, 3", 2), ("layer 6", 1)]
    assert stack[0].children[1].choices["window"] == 16
    assert "window" not in stack[1].children[1].choices


def test_the_tree_holds_every_parameter(patterned: Card) -> None:
    assert sum(node.count * node.parameters for node in patterned.parts) == patterned.parameters.total
    layer = patterned.parts[1]
    own = sum(child.count * child.parameters for child in layer.children)
    assert own == layer.parameters
    mixer = layer.children[1]
    assert (mixer.label, mixer.part, mixer.shapes["k"]) == ("mixer", "attention", (64, 128))


def test_parts_that_do_nothing_are_left_out(page: Page) -> None:
    found = card(page(position="none", norm="none"))
    layer = found.parts[1]
    assert [(node.label, [child.label for child in node.children]) for node in layer.children] == [
        ("mixer", []),
        ("ffn", ["activation"]),
    ]
    assert [node.label for node in found.parts] == ["embedding", "layers 0-3", "head"]


def test_a_part_shows_what_its_page_chose(page: Page) -> None:
    norm = {"type": "rms_norm", "offset": 1.0}
    inner = {"type": "rms_norm", "eps": 1e-5}
    found = card(page(norm=norm, mixer={"qk_norm": inner}, position={"type": "rope", "theta": 5e5}))
    layer, last = found.parts[1], found.parts[2]
    names = {child.label: child.choices for child in layer.children}
    assert last.choices == names["mixer_norm"] == names["ffn_norm"] == {"offset": 1.0}
    inside = {child.label: child for child in layer.children[1].children}
    q_norm, position = inside["q_norm, k_norm"], inside["position"]
    assert (q_norm.label, q_norm.count, q_norm.choices) == ("q_norm, k_norm", 2, {"eps": 1e-5})
    assert position.choices == {"theta": 5e5}


def test_text_names_parts_shapes_and_figures(patterned: Card) -> None:
    text = patterned.text()
    for words in ("attention", "q, out 128 x 128; k, v 64 x 128", "x4", f"{patterned.parameters.total:,}", "ln V"):
        assert words in text
    assert "\x1b" not in text
    table = text.split("\n\n")[1].splitlines()
    assert len({len(line) for line in table if line[-1].isdigit()}) == 1  # numbers end in one column


def test_data_is_json_with_the_promised_keys(patterned: Card) -> None:
    data = json.loads(json.dumps(patterned.data(), allow_nan=False))
    assert data["parameters"].keys() >= {"total", "active", "non_embedding", "tied"}
    assert data["flops"].keys() == {"forward_per_token", "train_per_token"}
    parts = ("weights", "gradients", "optimizer", "activations", "logits")
    assert max(data["memory"][part] for part in parts) < data["memory"]["peak"]
    assert data["memory"]["peak"] <= sum(data["memory"][part] for part in parts)
    assert data["state"].keys() >= {"bytes_per_token", "total"}
    assert data["loss"].keys() >= {"initial", "uniform"}
    assert data["parts"][1]["children"][1]["part"] == "attention"


@pytest.mark.usefixtures("tagged")
def test_html_escapes_what_the_spec_holds(page: Page) -> None:
    html = card(page(norm={"type": "test.tagged", "tag": "<script>&"}, block={"norm": "rms_norm"})).html()
    assert "&lt;script&gt;&amp;" in html
    assert "<script" not in html


def test_a_terminal_shows_what_the_text_shows(patterned: Card) -> None:
    out = StringIO()
    Console(file=out, width=160, no_color=True).print(patterned.rich())
    for words in ("attention", "q, out 128 x 128", f"{patterned.parameters.total:,}", "activations"):
        assert words in out.getvalue()


@pytest.mark.usefixtures("tagged")
def test_a_terminal_takes_brackets_for_text(page: Page) -> None:
    out = StringIO()
    spec = page(norm={"type": "test.tagged", "tag": "[red]"}, block={"norm": "rms_norm"})
    Console(file=out, width=160).print(card(spec).rich())
    assert "[red]" in out.getvalue()


def test_a_model_describes_itself_by_its_card(page: Page) -> None:
    spec = page()
    model = build(spec)
    assert model.describe() == card(spec).text()
    assert model._repr_html_() == card(spec).html()
