"""`kit bench`: peers of the same mathematics, fair turns, limits that are limits."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.cli.conftest import kit as kit
from tests.cli.runner import Kit
from transformer_kit import Spec, build
from transformer_kit.bench import limit, run, timing, worker
from transformer_kit.bench.peers import INT8, KIT, LEAN, candidate, parameters
from transformer_kit.bench.plain import Plain
from transformer_kit.bench.run import compare
from transformer_kit.bench.shape import NoPeer, config_of, shape_of
from transformer_kit.bench.work import Setting, train
from transformer_kit.bench.worker import Task, Worker
from transformer_kit.cost.card import card

CPU = torch.device("cpu")
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "position": "learned",
        "block": {
            "mixer": {"type": "attention", "n_heads": 4, "bias": ["q", "k", "v", "out"]},
            "ffn": {"type": "mlp", "activation": "gelu_tanh"},
        },
    },
    "llama": {
        "position": "rope",
        "norm": {"type": "rms_norm", "eps": 1e-5},
        "block": {"mixer": {"type": "attention", "n_heads": 4, "n_kv_heads": 2}, "ffn": {"type": "gated", "d_ff": 48}},
    },
}


ALIBI = {"vocab_size": 1, "d_model": 4, "max_seq_len": 1, "position": "alibi"} | {
    "layers": {"count": 1, "block": {"mixer": {"type": "attention", "n_heads": 1}, "ffn": "mlp", "type": "pre_norm"}}
}


def _spec(family: str) -> Spec:
    parts = dict(FAMILIES[family])
    layers = {"count": 2, "block": {"type": "pre_norm", **parts.pop("block")}}
    sizes = {"vocab_size": 61, "d_model": 32, "max_seq_len": 24, "dropout": 0.1, "head": {"type": "lm", "tied": True}}
    return Spec.of({"model": {**sizes, **parts, "layers": layers}})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hand_written_module_computes_what_the_kit_does(family: str) -> None:
    model, config = build(_spec(family)).eval(), config_of(_spec(family))
    assert config["model_type"] == family
    plain = Plain(shape_of(config))
    theirs = dict(plain.named_parameters())
    with torch.no_grad():
        for name, tensor in theirs.items():
            tensor.copy_(_ours(name, model.state_dict()))
    assert parameters(plain) == parameters(model)
    ids = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(ids), model(ids).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain.loss(ids, ids), model(ids, ids).loss)
    written = torch.cat(list(plain.decode(ids, 5)), dim=1)
    assert written.tolist() == model.generate(ids.tolist(), max_new_tokens=5)


def _ours(name: str, state: dict[str, Tensor]) -> Tensor:
    """The kit's tensor for one of the module's names; fused ones joined."""
    if name == "tokens.weight":
        return state["embedding.table.weight"]
    if name == "positions.weight":
        return state["position.table.weight"]
    if not name.startswith("blocks."):
        return state[name]
    _, layer, rest = name.split(".", 2)
    owner, kind = rest.rsplit(".", 1)
    gated = f"layers.{layer}.ffn.gate.{kind}" in state
    names = {
        "norm1": ["mixer_norm"],
        "norm2": ["ffn_norm"],
        "attention.qkv": ["mixer.q", "mixer.k", "mixer.v"],
        "attention.out": ["mixer.out"],
        "up": ["ffn.gate", "ffn.up"] if gated else ["ffn.up"],
        "down": ["ffn.down"],
    }
    return torch.cat([state[f"layers.{layer}.{n}.{kind}"] for n in names[owner]])


@pytest.mark.parametrize("work", ["train", "prefill", "decode"])
def test_a_comparison_measures_everyone_in_turns(work: str, tmp_path: Any) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(_yaml(_spec("gpt2")))
    setting = Setting(batch=2, seq=8, new=3, device=CPU, dtype=torch.float32, rounds=2)
    found = compare(work, str(page), [], setting, ["plain", "tutorial"])
    assert [row.name for row in found.rows] == [KIT, "plain", "tutorial"]
    assert len({row.parameters for row in found.rows}) == 1
    assert found.rows[0].ratio == found.rows[0].ratio_of_minima == 1.0
    for row in found.rows:
        assert row.ratio == pytest.approx(found.rows[0].median / row.median)
        assert 0 < row.minimum <= row.median
        assert row.share is not None
        assert 0 < row.share < 1
    assert torch.get_num_threads() == found.threads


@pytest.mark.parametrize("when", ["idle", "starting"])
def test_a_candidate_that_dies_is_named(when: str, tmp_path: Any) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(_yaml(_spec("gpt2")))
    setting = Setting(batch=2, seq=8, new=3, device=CPU, dtype=torch.float32, rounds=1)
    with Worker(Task("plain", "train", str(page), [], setting, 1)) as one:
        if when == "idle":
            assert one.parameters() > 0
            assert one.turn(0) > 0
        one._process.kill()
        one._process.wait()
        with pytest.raises(ChildProcessError, match="plain: its process died: exit code -9"):
            one.turn(1)


def test_the_kit_trains_as_its_command_does_and_nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(_yaml(_spec("gpt2")))
    setting = Setting(batch=2, seq=8, new=3, device=CPU, dtype=torch.float32, rounds=1)
    kept = []
    monkeypatch.setattr(worker, "keep_freed", kept.append)
    for name, work in (("plain", "train"), (KIT, "prefill"), (KIT, "train")):
        assert kept == []
        assert worker._made(Task(name, work, str(page), [], setting, 1)).name == name
    assert kept == [CPU]


def test_memory_that_the_system_does_not_tell_is_not_measured(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(_yaml(_spec("gpt2")))
    monkeypatch.setattr(run, "STATUS", tmp_path / "status")
    done = kit("bench", "memory", page, "--seq", "8", "--against", "plain")
    assert done.code == 3
    assert "which this system does not have" in done.err


def test_turns_begin_with_another_each_round() -> None:
    order: list[str] = []

    def timed(name: str) -> timing.Timed:
        def work(turn: int) -> float:
            order.append(name)
            return float(turn)

        return work

    work = {"a": timed("a"), "b": timed("b")}
    found = timing.interleaved(work, rounds=2, warmup=1, before=lambda turn: order.append(str(turn)))
    assert order == ["-1", "b", "a", "0", "a", "b", "1", "b", "a"]
    assert found == {"a": [0.0, 1.0], "b": [0.0, 1.0]}


def test_the_limit_is_what_the_machine_mostly_does(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = iter([1e9, 5e9, 2e9])
    monkeypatch.setattr(run.machine, "read_bandwidth", lambda _: next(reads))
    monkeypatch.setattr(run.machine, "matmul_peak", lambda *_: 1e30)

    def interleaved(_: object, rounds: int, before: Callable[[int], None]) -> dict[str, list[float]]:
        for turn in range(-2, rounds):
            before(turn)
        return {KIT: [4.0, 2.0, 1.0]}

    monkeypatch.setattr(run, "interleaved", interleaved)
    setting = Setting(batch=1, seq=8, new=4, device=CPU, dtype=torch.float32, rounds=3)
    result = run._timed("decode", "tests/benchmarks/specs/llama-tiny.yaml", [], setting, [], 1)
    assert result.bandwidth == 2e9
    assert result.rows[0].share == pytest.approx(result.limit / 2)  # the middle one of 1/4, 1/10 and 1/2


def test_a_candidate_alone_is_compared_with_what_the_machine_did_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(run.machine, "read_bandwidth", lambda _: next(speeds))
    monkeypatch.setattr(run.machine, "matmul_peak", lambda *_: 0.5)

    class Quick:
        def __init__(self, task: worker.Task) -> None:
            self.name = task.candidate

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731
        parameters = lambda self: 7  # noqa: E731
        turn = lambda self, turn: 1.0  # noqa: E731

    monkeypatch.setattr(run, "Worker", Quick)
    setting = Setting(batch=1, seq=8, new=4, device=CPU, dtype=torch.float32, rounds=2)
    tasks = [worker.Task(name, "decode", "page", [], setting, 1) for name in (KIT, "plain")]
    found = run._one_by_one(tasks, 2, run._Capacity(setting))
    assert found.speeds == {KIT: [(0.5, 1.0), (0.5, 2.0)], "plain": [(0.5, 3.0), (0.5, 4.0)]}
    assert found.values == {KIT: [1.0, 1.0], "plain": [1.0, 1.0]}
    assert found.parameters == {KIT: 7, "plain": 7}


def test_what_the_work_takes_is_counted() -> None:
    spec = _spec("llama")
    setting = Setting(batch=3, seq=8, new=4, device=CPU, dtype=torch.float32, rounds=1)
    costs = card(spec, batch=3, seq=8)
    assert limit.demand("train", spec, setting).flops == pytest.approx(costs.flops.train_per_token * 24)
    decode = limit.demand("decode", spec, setting)
    weights = sum(p.nbytes for p in build(spec).parameters())  # the tied table is the head's
    past = 2 * 2 * 3 * 10 * 2 * 8 * 4  # k and v, layers, rows, tokens, heads, width, bytes
    assert decode.bytes == 4 * (weights + past)
    assert decode.tokens == 12
    prefill = limit.demand("prefill", spec, setting)
    assert prefill.flops < costs.flops.forward_per_token * 24  # one row of logits, not all
    assert decode.seconds(peak=1e30, bandwidth=decode.bytes) == 1.0


def test_peers_that_cannot_are_named_with_the_reason() -> None:
    spec = _spec("llama")
    turned = spec.model.model_copy(update={"position": Spec.of({"model": ALIBI}).model.position})
    with pytest.raises(NoPeer, match="has no class for this model"):
        candidate("plain", Spec(model=turned))
    with pytest.raises(NoPeer, match="shape of gpt2"):
        candidate("tutorial", _spec("llama"))


def test_the_command(kit: Kit, tmp_path: Any) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(_yaml(_spec("llama")))
    args = ("--batch", "1", "--seq", "8", "--new", "2", "--rounds", "1", "--against", "plain,tutorial")
    found = kit("bench", "decode", page, *args, "--json").json()
    assert [row["name"] for row in found["rows"]] == [KIT, "plain"]
    assert "shape of gpt2" in found["absent"]["tutorial"]
    text = kit("bench", "prefill", page, *args).out
    assert "kit / this" in text
    assert "tutorial: is written for the shape of gpt2" in text
    wrong = kit("bench", "train", page, "--against", "nobody", "--seq", "8")
    assert wrong.code == 2
    assert "no peer 'nobody'; there are plain, tutorial, transformers" in wrong.err
    wrong = kit("bench", "decode", page, "--seq", "24")
    assert "at most 24 tokens, got 57; choose a smaller --seq or --new" in wrong.err
    wrong = kit("bench", "train", page, "--dtype", "int4", "--seq", "8")
    assert "--dtype must be one of float32, bfloat16, float16, got int4" in wrong.err


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_memory_is_that_of_a_process_of_its_own(kit: Kit, tmp_path: Any) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(_yaml(_spec("gpt2")))
    sets = ("--set", "model.d_model=512", "--set", "model.vocab_size=8000")
    found = kit("bench", "memory", page, *sets, "--seq", "8", "--against", "plain,lean", "--json").json()
    ours, plain, lean = found["rows"]
    assert ours["parameters"] == plain["parameters"] == lean["parameters"] > 10_000_000
    for row in (ours, plain):  # weights, gradients and two values of the optimizer's, at least
        assert row["median"] > 0.9 * 4 * 4 * row["parameters"]
    assert 0.9 * 3 * 4 * lean["parameters"] < lean["median"] < 0.95 * ours["median"]


def test_lean_and_int8_do_what_they_are_for(tmp_path: Any) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(_yaml(_spec("gpt2")))
    setting = Setting(batch=2, seq=8, new=3, device=CPU, dtype=torch.float32, rounds=1)
    with pytest.raises(NoPeer, match="saves memory in training"):
        worker._made(Task(LEAN, "decode", str(page), [], setting, 1))
    with pytest.raises(NoPeer, match="is for prompts and decoding on a CPU"):
        worker._made(Task(INT8, "train", str(page), [], setting, 1))
    lean = candidate(LEAN, _spec("gpt2"))
    before = lean.module.state_dict()["embedding.table.weight"].clone()
    train(lean, setting)(0)
    assert all(p.grad is None for p in lean.module.parameters())
    assert not torch.equal(lean.module.state_dict()["embedding.table.weight"], before)


def _yaml(spec: Spec) -> str:
    from transformer_kit.spec.brief import page
    from transformer_kit.spec.yaml import dump

    return dump(page(spec))
