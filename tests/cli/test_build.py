"""`kit build`: the card, in the reader's form."""

import shlex
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
    assert kit("build", page, "--fits", "1GiB", "--batch", 1, "--seq", 8).code == 0
    done = kit("build", page, "--fits", "10KiB")
    assert done.code == 4
    assert "a training step with 1 sequence of 32 tokens takes" in done.err
    assert "more than 10.00 KiB" in done.err
    assert "parameters" in done.out
    told = kit("build", page, "--fits", "10KB", "--json", "--for", "decode")
    assert told.code == 4
    assert told.json()["fits"]["fits"] is False


def test_the_largest_that_fits_is_found_and_shown(kit: Kit, page: Path) -> None:
    done = kit("build", page, "--fits", "1MB", "--seq", 16, "--json").json()
    fits = done["fits"]
    assert (fits["limit"], fits["purpose"], fits["seq"], fits["fits"]) == (10**6, "train", 16, True)
    assert fits["needs"] == done["memory"]["peak"] <= 10**6 < fits["beyond"]
    assert done["batch"] == fits["batch"] > 1
    token = done["state"]["bytes_per_token"]
    room = f"{done['memory']['weights'] + 2 * 10 * token + 1}B"
    longest = kit("build", page, "--fits", room, "--batch", 2, "--for", "decode", "--json")
    assert longest.json()["fits"]["seq"] == 10
    told = kit("build", page, "--fits", "1MB", "--seq", 16).out
    assert f"fits          {fits['batch']} sequences of 16 tokens: a training step takes" in told


@pytest.mark.parametrize(
    "words",
    [
        "--batch 0",
        "--seq 999",
        "--dtype int3",
        "--precision int3",
        "--dtype bfloat16 --precision bfloat16",
        "--optimizer adamm",
        "--fits much",
        "--fits '10 kB'",
        "--for writing",
        "--fits 1GB --for fun",
        "--fits 1GB --for decode --precision bfloat16",
    ],
)
def test_sizes_that_cannot_be(kit: Kit, page: Path, words: str) -> None:
    done = kit("build", page, *shlex.split(words))
    assert (done.code, done.out) == (2, "")
    assert done.err


def test_a_giant_is_shown_without_its_memory(kit: Kit) -> None:
    assert kit("build", "llama-3-8b", "--json").json()["parameters"]["total"] == 8_030_261_248


def test_a_card_of_decoding_says_nothing_of_training(kit: Kit, page: Path) -> None:
    told = kit("build", page, "--for", "decode", "--batch", 3).out
    for word in ("training", "gradients", "optimizer", "activations"):
        assert word not in told
    whole = kit("build", page, "--batch", 3, "--json").json()
    alone = kit("build", page, "--batch", 3, "--for", "decode", "--json").json()
    weights, state = whole["memory"]["weights"], whole["state"]["total"]
    assert alone["memory"] == {"weights": weights, "decode_state": state, "peak": weights + state}
    assert (whole["purpose"], alone["purpose"]) == ("train", "decode")
    assert list(alone["flops"]) == ["forward_per_token"]
    assert alone["notes"] == []
    assert "training" in kit("build", page).out
