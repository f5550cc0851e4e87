"""Time of a training step against a plain hand-written module of the same mathematics: `make bench`.

GPT-2 shape: 6 layers, 384 wide, 6 heads, bytes, 256 tokens, batch 8, float32, AdamW. The two are interleaved step by
step in one process, so that a busy machine slows both; the ratio of medians and of minima is what counts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer_kit import Spec, build

V, D, T, B, LAYERS, HEADS = 257, 384, 256, 8, 6, 6

SPEC = {
    "model": {
        "vocab_size": V,
        "d_model": D,
        "max_seq_len": T,
        "position": "learned",
        "layers": {
            "count": LAYERS,
            "block": {
                "type": "pre_norm",
                "mixer": {"type": "attention", "n_heads": HEADS, "bias": ["q", "k", "v", "out"]},
                "ffn": {"type": "mlp", "activation": "gelu_tanh"},
            },
        },
        "head": {"type": "lm", "tied": True},
        "init": "gpt2",
    }
}


class PlainBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (h.view(b, t, HEADS, -1).transpose(1, 2) for h in self.qkv(self.norm1(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, D))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks, self.norm = nn.ModuleList(PlainBlock() for _ in range(LAYERS)), nn.LayerNorm(D)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, V), targets.view(-1))


def stepper(model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], float]:
    """A function that takes one optimizer step and returns its seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(tokens: Tensor, targets: Tensor) -> float:
        begin = time.perf_counter()
        loss_of(tokens, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - begin

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    ours, plain = build(Spec.of(SPEC)), Plain()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in plain.parameters())
    steps = {
        "transformer_kit": stepper(ours, lambda x, y: ours(x, y).loss),
        "hand-written": stepper(plain, plain),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(args.steps + 2):
        tokens, targets = torch.randint(0, V, (2, B, T))
        for name, step in steps.items():
            taken = step(tokens, targets)
            if i >= 2:
                seconds[name].append(taken)
    mine, theirs = seconds["transformer_kit"], seconds["hand-written"]
    report = {
        "median_s": {n: round(statistics.median(s), 4) for n, s in seconds.items()},
        "minimum_s": {n: round(min(s), 4) for n, s in seconds.items()},
        "ratio_of_medians": round(statistics.median(mine) / statistics.median(theirs), 3),
        "ratio_of_minima": round(min(mine) / min(theirs), 3),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
