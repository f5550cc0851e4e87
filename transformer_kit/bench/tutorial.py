"""The model of tutorials: each head is a module with its own mask, outputs are concatenated, and there is no cache.

It computes GPT-2, with the same parameters as the other candidates.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer_kit.bench.shape import NoPeer, Shape


class Head(nn.Module):
    """One head of attention."""

    mask: Tensor

    def __init__(self, d_model: int, width: int, seq: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(d_model, width) for _ in range(3))
        self.register_buffer("mask", torch.tril(torch.ones(seq, seq)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        k = self.key(x)
        scores = self.query(x) @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        scores = scores.masked_fill(self.mask[:length, :length] == 0, float("-inf"))
        return F.softmax(scores, dim=-1) @ self.value(x)


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, width = shape.d_model, shape.d_model // shape.heads
        self.heads = nn.ModuleList(Head(d, width, shape.seq) for _ in range(shape.heads))
        self.out = nn.Linear(d, d)
        self.norm1, self.norm2 = nn.LayerNorm(d, shape.eps), nn.LayerNorm(d, shape.eps)
        self.ffn = nn.Sequential(nn.Linear(d, shape.d_ff), nn.GELU("tanh"), nn.Linear(shape.d_ff, d))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.out(torch.cat([head(h) for head in self.heads], dim=-1))
        return x + self.ffn(self.norm2(x))


class Tutorial(nn.Module):
    """Tokens (B, T) to logits (B, T, V)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        if shape.family != "gpt2":
            raise NoPeer("is written for the shape of gpt2")
        self.tokens = nn.Embedding(shape.vocab, shape.d_model)
        self.positions = nn.Embedding(shape.seq, shape.d_model)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.d_model, shape.eps)
        self.head = nn.Linear(shape.d_model, shape.vocab, bias=False)
        if shape.tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x)))

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        logits = self(tokens)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    def decode(self, tokens: Tensor, count: int) -> Iterator[Tensor]:
        """`count` ids after the prompt, each from a full forward pass: (B, 1)."""
        for _ in range(count):
            chosen = self(tokens)[:, -1:].argmax(dim=-1)
            yield chosen
            tokens = torch.cat([tokens, chosen], dim=1)
