"""`tutorial.yaml` is the tutorial's model: equal logits, loss and gradients to a plain version written per head.

Trained from weights that each draws for itself, the two learn alike.
"""

import argparse
import copy
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer_kit import Model, build, read

V, D, CONTEXT, HEADS, BLOCKS = 257, 512, 16, 8, 12


class PlainHead(nn.Module):
    allowed: Tensor

    def __init__(self, d: int) -> None:
        super().__init__()
        self.query = nn.Linear(d, d // HEADS, bias=False)
        self.key = nn.Linear(d, d // HEADS, bias=False)
        self.value = nn.Linear(d, d // HEADS, bias=False)
        self.register_buffer("allowed", torch.tril(torch.ones(CONTEXT, CONTEXT)))

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        k = self.key(x)
        weights = self.query(x) @ k.transpose(-2, -1) / k.shape[-1] ** 0.5
        weights = weights.masked_fill(self.allowed[:T, :T] == 0, float("-inf"))
        return F.softmax(weights, dim=-1) @ self.value(x)


class PlainBlock(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(PlainHead(d) for _ in range(HEADS))
        self.projection = nn.Linear(d, d)
        self.feed_forward = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), nn.Linear(4 * d, d))
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.projection(torch.cat([head(h) for head in self.heads], dim=-1))
        return x + self.feed_forward(self.norm2(x))


class PlainModel(nn.Module):
    positions: Tensor

    def __init__(self, d: int = D, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.tokens = nn.Embedding(V, d)
        self.blocks = nn.ModuleList(PlainBlock(d) for _ in range(blocks))
        self.norm = nn.LayerNorm(d)
        self.out = nn.Linear(d, V)
        self.register_buffer("positions", sinusoids(CONTEXT, d))

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.out(self.norm(x))
        return logits, F.cross_entropy(logits.view(-1, V), targets.view(-1))


def sinusoids(length: int, d: int) -> Tensor:
    table = torch.zeros(length, d)
    for p in range(length):
        for i in range(0, d, 2):
            angle = torch.tensor(p / 10000 ** (i / d))
            table[p, i], table[p, i + 1] = torch.sin(angle), torch.cos(angle)
    return table


def pairs(ours: Model, plain: PlainModel) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Each tensor of ours and the plain ones which, stacked by rows, should equal it."""
    yield ours.get_parameter("embedding.table.weight"), [plain.tokens.weight]
    for i, block in enumerate(plain.blocks):
        assert isinstance(block, PlainBlock)
        for name in ("query", "key", "value"):
            yield (
                ours.get_parameter(f"layers.{i}.mixer.{name[0]}.weight"),
                [h.get_submodule(name).get_parameter("weight") for h in block.heads],
            )
        rest = {"mixer.out": block.projection, "mixer_norm": block.norm1, "ffn_norm": block.norm2}
        rest |= {"ffn.up": block.feed_forward[0], "ffn.down": block.feed_forward[2]}
        for name, module in rest.items():
            for kind in ("weight", "bias"):
                yield ours.get_parameter(f"layers.{i}.{name}.{kind}"), [module.get_parameter(kind)]
    yield ours.get_parameter("norm.weight"), [plain.norm.weight]
    yield ours.get_parameter("norm.bias"), [plain.norm.bias]
    yield ours.get_parameter("head.out.weight"), [plain.out.weight]
    yield ours.get_parameter("head.bias"), [plain.out.bias]


@pytest.fixture(scope="module")
def plain() -> PlainModel:
    torch.manual_seed(0)
    model = PlainModel()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_equals_the_plain_version(plain: PlainModel) -> None:
    ours = build(read("tutorial", ["model.dropout=0"]))
    covered = set()
    with torch.no_grad():
        for mine, theirs in pairs(ours, plain):
            mine.copy_(torch.cat(theirs))
            covered.add(mine)
    assert covered == set(ours.parameters())

    tokens = torch.randint(0, V, (3, CONTEXT), generator=torch.Generator().manual_seed(1))
    targets = torch.randint(0, V, (3, CONTEXT), generator=torch.Generator().manual_seed(2))
    logits, loss = ours(tokens, targets)
    expected_logits, expected_loss = plain(tokens, targets)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, expected_loss, atol=1e-5, rtol=1e-5)

    loss.backward()
    expected_loss.backward()
    for mine, theirs in pairs(ours, plain):
        torch.testing.assert_close(mine.grad, torch.cat([t.grad for t in theirs]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("model.position=rope", "position"),
        ("model.layers.block.ffn.activation=gelu", "activation"),
        ("model.layers.block.type=post_norm", "block"),
    ],
)
def test_one_word_changes_that_part_and_nothing_else(change: str, part: str) -> None:
    small = ["model.d_model=64", "model.layers.count=2"]
    before, after = build(read("tutorial", small)), build(read("tutorial", [*small, change]))
    old, new = copy.deepcopy(before.state_dict()), after.state_dict()
    assert {n: t.shape for n, t in old.items()} == {n: t.shape for n, t in new.items()}
    assert all(torch.equal(old[name], new[name]) for name in old), "the same seed gives the same weights"

    kinds = {n: type(m) for n, m in before.named_modules()}
    changed = {type(m) for n, m in after.named_modules() if kinds.get(n) is not type(m)}
    assert {getattr(c, "family", "") for c in changed} <= {part}
    tokens = torch.arange(CONTEXT)[None]
    assert not torch.allclose(before.eval()(tokens).logits, after.eval()(tokens).logits)


def losses(model: nn.Module) -> list[float]:
    """Of 100 steps on Python source code, the same batches for everyone."""
    text = torch.tensor(list(Path(argparse.__file__).read_bytes()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(100):
        starts = torch.randint(len(text) - CONTEXT, (32, 1), generator=generator)
        rows = text[starts + torch.arange(CONTEXT + 1)]
        _, loss = model(rows[:, :-1], rows[:, 1:].contiguous())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_learns_as_the_plain_version() -> None:
    small = ["model.dropout=0", "model.d_model=64", "model.layers.count=3"]

    def ours(seed: int, *sets: str) -> list[float]:
        return losses(build(read("tutorial", [*small, *sets]), seed=seed))

    def theirs(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return losses(PlainModel(64, 3))

    def last(curve: list[float]) -> float:
        return sum(curve[-10:]) / 10

    mine, plain = [ours(seed) for seed in range(2)], [theirs(seed) for seed in range(2)]
    assert mean(curve[0] for curve in mine) == pytest.approx(mean(curve[0] for curve in plain), abs=0.3)
    learned = mean(map(last, plain))
    assert learned < 2.5
    assert mean(map(last, mine)) == pytest.approx(learned, abs=0.06)
    assert last(ours(0, "model.init=xavier")) > learned + 0.2, "what this compares depends on the first weights"
