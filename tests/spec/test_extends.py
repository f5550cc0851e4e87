"""Specs that build on specs: `extends`, `model`, and what they may not reach."""

import os
import time
from pathlib import Path

import pytest

from tests.spec.pages import Pages
from transformer_kit.spec.errors import SpecError
from transformer_kit.spec.read import read, read_run

RUN = "model: page.yaml\noptimizer: {type: adamw, lr: 1e-3}\ntrain: {steps: 3}\n"


def wrong(name: str = "top.yaml") -> list[str]:
    """The lines of the error that reading ends in."""
    with pytest.raises(SpecError) as caught:
        read(name)
    return str(caught.value).splitlines()


def test_a_page_lies_on_what_it_builds_on(pages: Pages) -> None:
    pages.write(pages.text)
    pages.write("extends: page.yaml\nmodel:\n  d_model: 64\n  layers: {block: {ffn: {d_ff: 96}}}\n", "top.yaml")
    model, below = read("top.yaml").model, read("page.yaml").model
    assert (model.d_model, model.layers.blocks[0].ffn.d_ff) == (64, 96)
    assert (model.vocab_size, model.position) == (below.vocab_size, below.position)


def test_a_shipped_page_is_known_by_its_name() -> None:
    assert read("tutorial").model.d_model == 512


def test_building_on_a_shipped_page(pages: Pages) -> None:
    pages.write("extends: tutorial\nmodel: {dropout: 0.0}\n", "top.yaml")
    assert (read("top.yaml").model.dropout, read("top.yaml").model.d_model) == (0.0, 512)


def test_an_architecture_builds_on_another_page(pages: Pages) -> None:
    pages.write("model: {extends: gpt2-124m, d_model: 384, layers: {count: 2}}\n", "top.yaml")
    model = read("top.yaml").model
    assert (model.d_model, len(model.layers.blocks), model.vocab_size) == (384, 2, 50257)


def test_a_run_names_its_model_by_path_or_by_name(pages: Pages) -> None:
    pages.write(pages.text, "models/small.yaml")
    pages.write(RUN.replace("page.yaml", "../models/small.yaml"), "runs/one.yaml")
    pages.write(RUN.replace("page.yaml", "tutorial"), "runs/two.yaml")
    assert read_run("runs/one.yaml").model == read("models/small.yaml").model
    assert read_run("runs/two.yaml").model == read("tutorial").model


def test_a_model_of_its_own_replaces_the_one_below(pages: Pages) -> None:
    pages.write(pages.text.replace("position: rope", "final_norm: rms_norm"))
    pages.write(RUN, "run.yaml")
    for own in ("model: tutorial", "model: {extends: tutorial}"):
        pages.write(f"extends: run.yaml\n{own}\n", "top.yaml")
        assert read_run("top.yaml").model == read("tutorial").model
    pages.write("extends: run.yaml\nmodel: {dropout: 0.25}\n", "top.yaml")
    assert (read_run("top.yaml").model.dropout, read_run("top.yaml").model.d_model) == (0.25, 32)


def test_a_mistake_below_is_placed_where_it_stands_and_how_it_came(pages: Pages) -> None:
    pages.write(pages.changed("d_ff: 48", "d_f: 48"))
    pages.write("extends: page.yaml\nmodel: {dropout: 2.0}\n", "top.yaml")
    assert wrong() == [
        "page.yaml:12:26: model.layers.block.ffn.d_f: no option 'd_f' in 'gated'; did you mean 'd_ff'? "
        "(from page.yaml, which top.yaml builds on)",
        "top.yaml:2:9: model.dropout: must be less than 1.0, got 2.0",
    ]


def test_options_lost_with_a_part_below_are_notes(pages: Pages) -> None:
    pages.write(pages.text)
    pages.write("extends: page.yaml\nmodel: {layers: {block: {ffn: mlp}}}\n", "top.yaml")
    assert read("top.yaml").notes == (
        "top.yaml:2:31: model.layers.block.ffn: 'mlp' replaces 'gated'; not carried over: d_ff",
    )


BAD = {
    "itself": (
        "extends: top.yaml",
        "top.yaml:1:1: extends: specs build on each other in a circle: top.yaml -> top.yaml",
    ),
    "missing": (
        "extends: gone.yaml",
        "top.yaml:1:1: extends: there is no file 'gone.yaml', relative to the folder of",
    ),
    "folder": ("extends: folder.yaml", "top.yaml:1:1: extends: there is no file 'folder.yaml'"),
    "unknown name": ("extends: tutorail", "top.yaml:1:1: extends: no spec 'tutorail' comes with the kit"),
    "url": ("extends: https://example.org/x", "top.yaml:1:1: extends: no spec 'https://example.org/x' comes with"),
    "url of a spec": (
        "extends: https://example.org/x.yaml",
        "top.yaml:1:1: extends: there is no file 'https://example",
    ),
    "name with a path": (
        "extends: ../models/tutorial",
        "top.yaml:1:1: extends: no spec '../models/tutorial' comes with",
    ),
    "absolute": ("extends: /etc/page.yaml", "top.yaml:1:1: extends: '/etc/page.yaml' is an absolute path"),
    "outside": ("extends: ../page.yaml", "top.yaml:1:1: extends: '../page.yaml' lies outside "),
    "far outside": ("extends: ../../../../../../etc/passwd.yaml", "top.yaml:1:1: extends: '../../../../../../etc/pass"),
    "NUL": ('extends: "a\\0.yaml"', "top.yaml:1:1: extends: there is no file"),
    "too long": (f"extends: {'x' * 5000}.yaml", "top.yaml:1:1: extends: there is no file 'xxx"),
    "a list": ("extends: [tutorial]", "top.yaml:1:1: extends: must be the name of a spec or a path to one, got ['tuto"),
    "a number": (
        "model: {extends: 3}",
        "top.yaml:1:9: model.extends: must be the name of a spec or a path to one, got 3",
    ),
    "no model there": ("model: bare.yaml", "top.yaml:1:1: model: the spec 'bare.yaml' describes no model"),
    "a broken page": ("extends: broken.yaml", "broken.yaml:2:1: not YAML: "),
    "a link out": ("extends: link.yaml", "top.yaml:1:1: extends: 'link.yaml' lies outside "),
    "a link to itself": ("extends: loop.yaml", "top.yaml:1:1: extends: there is no file 'loop.yaml'"),
    "through a linked folder": ("extends: away/secret.yaml", "top.yaml:1:1: extends: 'away/secret.yaml' lies outside "),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_page_may_not_build_on(pages: Pages, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "secret.yaml").write_text("secret: 1\n", "utf-8")
    os.symlink(elsewhere / "secret.yaml", "link.yaml")
    os.symlink(elsewhere, "away")
    os.symlink("loop.yaml", "loop.yaml")
    Path("folder.yaml").mkdir()
    pages.write("kit: 1\n", "bare.yaml")
    pages.write("kit: [\n", "broken.yaml")
    text, message = BAD[name]
    pages.write(f"{text}\n", "top.yaml")
    (line,) = wrong()
    assert line.startswith(message)
    assert "secret:" not in line


def test_a_circle_of_pages_is_shown(pages: Pages) -> None:
    pages.write("extends: b.yaml\n", "top.yaml")
    pages.write("model: c.yaml\n", "b.yaml")
    pages.write("model: {extends: top.yaml}\n", "c.yaml")
    (line,) = wrong()
    assert line == (
        "c.yaml:1:9: model.extends: specs build on each other in a circle: top.yaml -> b.yaml -> c.yaml -> top.yaml"
    )


def test_pages_that_double_end_quickly(pages: Pages) -> None:
    for i in range(15):
        pages.write(f"extends: p{i + 1}.yaml\nmodel: {{extends: p{i + 1}.yaml}}\n", f"p{i}.yaml")
    pages.write(pages.text, "p15.yaml")
    began = time.process_time()
    (line,) = wrong("p0.yaml")
    assert "builds on too many specs: at most 16 deep and 64 in all" in line
    assert time.process_time() - began < 5


def test_a_chain_of_pages_has_an_end(pages: Pages) -> None:
    for i in range(20):
        pages.write(f"extends: p{i + 1}.yaml\n", f"p{i}.yaml")
    pages.write(pages.text, "p20.yaml")
    assert "builds on too many specs" in wrong("p0.yaml")[0]
    assert read("p10.yaml") == read("p20.yaml")


def test_a_page_elsewhere_builds_on_its_own_tree(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    pages.write(pages.text, "configs/models/small.yaml")
    run = pages.write(RUN.replace("page.yaml", "../models/small.yaml"), "configs/runs/run.yaml")
    (pages.folder / "desk").mkdir()
    monkeypatch.chdir(pages.folder / "desk")
    assert read_run(run).model.d_model == 32
