"""What only building finds out: parts that cannot stand where the spec puts them. All at once, with their lines."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from registry import core
from registry.context import Context
from registry.contracts import Mixer
from tests.spec.pages import PAGE, Pages
from transformer_kit.model.build import assemble, build
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.schema import Spec
from transformer_kit.spec.yaml import parse


@pytest.fixture
def pages(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Pages:
    """The working folder holds the specs."""
    monkeypatch.chdir(tmp_path)
    return Pages(tmp_path)


@pytest.fixture
def plain_mixer() -> Iterator[None]:
    """A mixer without heads, in which no position scheme acts."""
    with core.scope():

        @core.register("my.mean")
        class Mean(Mixer):
            """Mean over the tokens so far."""

            def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
                return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]

        yield


MIXER = "mixer: {type: attention, n_heads: 4}"
WRONG = {
    "heads that do not divide": (
        ("n_heads: 4", "n_heads: 5"),
        "page.yaml:11:7: model.layers.block.mixer: n_heads must divide d_model (32), got 5; "
        "choose another, or give head_dim",
    ),
    "odd rotary width": (
        ("n_heads: 4", "n_heads: 4, head_dim: 3"),
        "page.yaml:6:3: model.position: rotary_dim must be even, at least 2 and at most head_dim (3), got 3",
    ),
    "odd rotary width of one block": (
        ("type: pre_norm", "type: pre_norm\n      position: {type: rope, partial_rotary_factor: 0.4}"),
        "page.yaml:11:7: model.layers.block.position: rotary_dim must be even, at least 2 and at most",
    ),
    "learned positions inside a mixer": (
        ("type: pre_norm", "type: pre_norm\n      position: learned"),
        "page.yaml:12:7: model.layers.block.mixer: position 'learned' acts on the embedding, not in mixers; "
        "set it in `model.position`",
    ),
    "rope in a mixer that takes none": (
        (MIXER, "mixer: my.mean"),
        "page.yaml:11:7: model.layers.block.mixer: position 'rope' acts on the rotation, which mixer 'my.mean' does "
        "not use; choose a mixer that accepts it (attention, differential, mla), or `position: none` in this block",
    ),
    "rope of its own in a mixer that takes none": (
        (MIXER, "position: {type: rope, theta: 5.0}\n      mixer: my.mean"),
        "page.yaml:12:7: model.layers.block.mixer: position 'rope' acts on the rotation, which mixer 'my.mean' does",
    ),
    "alibi in a mixer that takes none": (
        (MIXER, "position: alibi\n      mixer: my.mean"),
        "page.yaml:12:7: model.layers.block.mixer: position 'alibi' acts on the bias, which mixer 'my.mean' does "
        "not use; choose a mixer that accepts it (attention, differential), or",
    ),
}


@pytest.mark.usefixtures("plain_mixer")
@pytest.mark.parametrize("name", WRONG)
def test_a_part_that_cannot_stand_there(pages: Pages, name: str) -> None:
    (old, new), message = WRONG[name]
    (line,) = pages.wrong(pages.changed(old, new), judge=assemble)
    assert line.startswith(message)


@pytest.mark.usefixtures("plain_mixer")
@pytest.mark.parametrize("position", ["none", "sinusoidal", "learned"])
def test_positions_of_the_embedding_suit_every_mixer(pages: Pages, position: str) -> None:
    text = pages.changed("position: rope", f"position: {position}").replace(MIXER, "mixer: my.mean")
    logits, _ = build(pages.read(text))(torch.zeros(1, 3, dtype=torch.long))
    assert logits.shape == (1, 3, 64)


def test_all_that_cannot_be_built_is_named_at_once(pages: Pages) -> None:
    more = """\
    kinds:
      odd: {mixer: {n_heads: 6}}
      own: {position: learned}
    pattern: [block, odd, own, block]
    at: {-1: {mixer: {n_heads: 7}}}
"""
    text = pages.changed("n_heads: 4", "n_heads: 5") + more
    assert [line.split(";")[0] for line in pages.wrong(text, judge=assemble)] == [
        "page.yaml:11:7: model.layers.block.mixer: n_heads must divide d_model (32), got 5",
        "page.yaml:11:7: model.layers.block.mixer: position 'learned' acts on the embedding, not in mixers",
        "page.yaml:14:13: model.layers.kinds.odd.mixer: n_heads must divide d_model (32), got 6",
        "page.yaml:17:15: model.layers.at.-1.mixer: n_heads must divide d_model (32), got 7",
    ]


def test_python_users_get_the_path() -> None:
    page = parse(PAGE.replace("n_heads: 4", "n_heads: 5"), "page.yaml")[0]
    with pytest.raises(SpecError, match=r"^spec: model\.layers\.block\.mixer: n_heads must divide d_model"):
        assemble(Spec.of(page))


def test_absurd_sizes_cost_nothing_on_meta(pages: Pages) -> None:
    text = pages.changed("d_model: 32", "d_model: 1048576").replace("vocab_size: 64", "vocab_size: 16777216")
    model = build(pages.read(text.replace("d_ff: 48", "d_ff: 1048576")), device="meta")
    assert sum(p.numel() for p in model.parameters()) > 10**13


def test_sizes_beyond_all_counting_are_refused(pages: Pages) -> None:
    text = pages.changed("d_model: 32", "d_model: 1048576").replace(
        "n_heads: 4", "n_heads: 1000000000, head_dim: 1048576"
    )
    (line,) = pages.wrong(text, judge=assemble)
    assert line.startswith("page.yaml:11:7: model.layers.block.mixer: is too large to count its weights: ")
