"""`tutorial.yaml` is the tutorial's model: equal logits, loss and gradients to a plain version written per head."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer_kit import Model, build, read

V, D, CONTEXT, HEADS, BLOCKS = 257, 512, 16, 8, 12
HEAD = D // HEADS


class PlainHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(D, HEAD, bias=False)
        self.key = nn.Linear(D, HEAD, bias=False)
        self.value = nn.Linear(D, HEAD, bias=False)
        self.register_buffer("allowed", torch.tril(torch.ones(CONTEXT, CONTEXT)))

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        weights = self.query(x) @ self.key(x).transpose(-2, -1) / HEAD**0.5
        weights = weights.masked_fill(self.allowed[:T, :T] == 0, float("-inf"))
        return F.softmax(weights, dim=-1) @ self.value(x)


class PlainBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(PlainHead() for _ in range(HEADS))
        self.projection = nn.Linear(D, D)
        self.feed_forward = nn.Sequential(nn.Linear(D, 4 * D), nn.ReLU(), nn.Linear(4 * D, D))
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.projection(torch.cat([head(h) for head in self.heads], dim=-1))
        return x + self.feed_forward(self.norm2(x))


class PlainModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(V, D)
        self.blocks = nn.ModuleList(PlainBlock() for _ in range(BLOCKS))
        self.norm = nn.LayerNorm(D)
        self.out = nn.Linear(D, V)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.tokens(tokens) + sinusoids(tokens.shape[1])
        for block in self.blocks:
            x = block(x)
        logits = self.out(self.norm(x))
        return logits, F.cross_entropy(logits.view(-1, V), targets.view(-1))


def sinusoids(length: int) -> Tensor:
    table = torch.zeros(length, D)
    for p in range(length):
        for i in range(0, D, 2):
            angle = torch.tensor(p / 10000 ** (i / D))
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
