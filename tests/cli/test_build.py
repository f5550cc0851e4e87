"""`kit build`: the card, in the reader's form."""

from pathlib import Path

import pytest

from tests.cli.runner import Kit


def test_the_card_as_text_and_json(kit: Kit, page: Path) -> None:
    shown = kit("build", page, "--json").json()
    assert {"total", "active", "non_embedding"} <= set(shown["parameters"])
    assert shown["flops"]["forward_per_token"] > 0
    assert shown["memory"]["weights"] == 4 * shown["parameters"]["total"]
    text = kit("build", page)
    assert (text.code, text.err) == (0, "")
    assert f"{shown['parameters']['total']:,}" in text.out


def test_options_change_the_card(kit: Kit, page: Path) -> None:
    one = kit("build", page, "--json").json()["memory"]
    assert kit("build", page, "--json", "--batch", 4).json()["memory"]["activations"] > 3 * one["activations"]
    assert kit("build", page, "--json", "--seq", 8).json()["memory"]["activations"] < one["activations"]
    assert kit("build", page, "--json", "--dtype", "bfloat16").json()["memory"]["weights"] == one["weights"] // 2
    assert kit("build", page, "--json", "--optimizer", "sgd").json()["memory"]["optimizer"] <= one["optimizer"]
    assert kit("build", page, "--json", "--set", "model.d_model=32").json()["memory"]["weights"] > one["weights"]


def test_what_does_not_fit_exits_with_4(kit: Kit, page: Path) -> None:
    assert kit("build", page, "--fits", "1GiB").code == 0
    done = kit("build", page, "--fits", "10KiB")
    assert done.code == 4
    assert "more than 10KiB" in done.err
    assert "parameters" in done.out
    told = kit("build", page, "--fits", "10 kB", "--json")
    assert told.code == 2
    told = kit("build", page, "--fits", "10KB", "--json")
    assert told.code == 4
    assert told.json()["fits"] is False


@pytest.mark.parametrize("words", ["--batch 0", "--seq 999", "--dtype int3", "--optimizer adamm", "--fits much"])
def test_sizes_that_cannot_be(kit: Kit, page: Path, words: str) -> None:
    done = kit("build", page, *words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err


def test_a_giant_is_shown_without_its_memory(kit: Kit) -> None:
    assert kit("build", "llama-3-8b", "--json").json()["parameters"]["total"] == 8_030_261_248
