"""A model written by hand without options: GPT-2 and Llama in one module.

Fused q/k/v and gate/up, torch's fused attention, a preallocated KV cache. It is the baseline for the kit's models;
nothing else uses it.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer_kit.bench.shape import Shape


class Norm(nn.Module):
    """LayerNorm or RMSNorm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.d_model))
        self.bias = nn.Parameter(torch.zeros(shape.d_model)) if shape.family == "gpt2" else None
        self.eps = shape.eps

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """Causal attention; `cache` (2, B, G, S, K) holds keys and values when decoding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.width = shape.d_model // shape.heads
        self.sizes = [shape.heads * self.width, shape.kv_heads * self.width, shape.kv_heads * self.width]
        self.qkv = nn.Linear(shape.d_model, sum(self.sizes), bias=shape.family == "gpt2")
        self.out = nn.Linear(shape.d_model, shape.d_model, bias=shape.family == "gpt2")
        self.grouped = shape.heads != shape.kv_heads

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, cache: Tensor | None, start: int) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).split(self.sizes, dim=-1)
        q, k, v = (part.view(batch, length, -1, self.width).transpose(1, 2) for part in parts)
        if angles is not None:
            q, k = _turn(q, *angles), _turn(k, *angles)
        if cache is not None:
            end = start + length
            cache[0, :, :, start:end], cache[1, :, :, start:end] = k, v
            k, v = cache[0, :, :, :end], cache[1, :, :, :end]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=length > 1, enable_gqa=self.grouped)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        bias = shape.family == "gpt2"
        self.norm1, self.norm2 = Norm(shape), Norm(shape)
        self.attention = Attention(shape)
        self.up = nn.Linear(shape.d_model, shape.d_ff * (1 if bias else 2), bias=bias)
        self.down = nn.Linear(shape.d_ff, shape.d_model, bias=bias)
        self.gated = not bias

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, cache: Tensor | None, start: int) -> Tensor:
        x = x + self.attention(self.norm1(x), angles, cache, start)
        h = self.up(self.norm2(x))
        if self.gated:
            gate, up = h.chunk(2, dim=-1)
            return x + self.down(F.silu(gate) * up)
        return x + self.down(F.gelu(h, approximate="tanh"))


class Plain(nn.Module):
    """Tokens (B, T) to logits (B, T, V)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocab, shape.d_model)
        self.positions = nn.Embedding(shape.seq, shape.d_model) if shape.family == "gpt2" else None
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape)
        self.head = nn.Linear(shape.d_model, shape.vocab, bias=False)
        if shape.tied:
            self.head.weight = self.tokens.weight
        if self.positions is None:
            width = shape.d_model // shape.heads
            frequency = shape.theta ** -(torch.arange(0, width, 2) / width)
            angle = torch.outer(torch.arange(shape.seq), frequency).repeat(1, 2)
            self.register_buffer("cos", angle.cos(), persistent=False)
            self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, tokens: Tensor, caches: list[Tensor] | None = None, start: int = 0, last: bool = False) -> Tensor:
        here = slice(start, start + tokens.shape[1])
        x, angles = self.tokens(tokens), None
        if self.positions is None:
            angles = self.cos[here], self.sin[here]
        else:
            x = x + self.positions.weight[here]
        for i, block in enumerate(self.blocks):
            x = block(x, angles, None if caches is None else caches[i], start)
        return self.head(self.norm(x[:, -1:] if last else x))

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())

    def decode(self, tokens: Tensor, count: int) -> Iterator[Tensor]:
        """`count` ids after the prompt, greedy: (B, 1)."""
        shape, start = self.shape, 0
        sizes = (2, len(tokens), shape.kv_heads, tokens.shape[1] + count, shape.d_model // shape.heads)
        caches = [self.head.weight.new_zeros(sizes) for _ in self.blocks]
        for _ in range(count):
            chosen = self(tokens, caches, start, last=True)[:, -1:].argmax(dim=-1)
            start += tokens.shape[1]
            yield chosen
            tokens = chosen


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
