"""The model: token ids to logits, assembled from parts. Read order is execution order.

Letters: B batch, T query tokens, D d_model, V vocab.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from registry.context import Context
from registry.contracts import Block, Embedding, Head, Norm, Position, Site
from registry.options import Options
from registry.state import Capacity, DecodeState
from transformer_kit.model.conveniences import Conveniences, Output
from transformer_kit.model.given import check_size
from transformer_kit.model.init import init_weights
from transformer_kit.model.inputs import check
from transformer_kit.model.loss import chunk_size, chunked_cross_entropy, cross_entropy
from transformer_kit.spec.schema import Spec


class Stack(NamedTuple):
    """A sequence of layers and the norm after them: a decoder or an encoder."""

    name: str
    layers: nn.ModuleList
    norm: nn.Module
    causal: bool
    """Whether attention is causal."""

    def run(self, x: Tensor, context: Context, state: DecodeState | None = None) -> Tensor:
        """x (B, T, D) through all layers, each with its own part of the state."""
        for i, layer in enumerate(self.layers):
            x = layer(x, context, None if state is None else state.layers[i])
        return x


class Model(Conveniences, nn.Module):
    """logits = head(norm(layers(position(embedding(tokens))))). Made by `build`."""

    prepared = False
    """Whether it was prepared for inference; see `prepare_for_inference`."""

    def __init__(self, spec: Spec, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.folder: Path | None = None
        """The folder that it was loaded from, with its tokenizer."""
        model = spec.model
        self.embedding = site.build(model.embedding, Embedding)
        self.position, site = _added(model.position, site)
        self.dropout = nn.Dropout(model.dropout) if model.dropout else nn.Identity()
        self.layers = nn.ModuleList(
            replace(site, at=partial(int, i)).build(block, Block) for i, block in enumerate(model.layers.blocks)
        )
        self.norm = site.build(model.final_norm, Norm)
        table = getattr(self.embedding, "weight", None)  # None when the embedding has a fault
        self.head = replace(site, table=None if table is None else table.shape[1]).build(model.head, Head)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        *,
        segments: Tensor | None = None,
        state: DecodeState | None = None,
        last: bool = False,
        skip_logits: bool = False,
    ) -> Output:
        """Logits and loss of `tokens` (B, T).

        targets      (B, T) the next ids; -100 is ignored
        segments     (B, T) document of each token, to which its attention is limited; -1 is padding
        state        decode state from `self.state`, with the previous tokens; advanced in place
        last         logits of the last token alone, (B, 1, V)
        skip_logits  the loss alone, for training: chunked cross-entropy, whose gradient can be taken once; the
                     returned logits are empty, (B, 0, V)

        Raises ValueError for wrong arguments, for ids outside the vocabulary (on a CPU), and for more than max_seq_len
        tokens with absolute positions; with others, such as rotary ones, that is a warning.
        """
        check(self.spec.model, tokens, targets, segments, state)
        (decoder,) = self.stacks
        context = (Context.of if state is None else state.context)(tokens, segments, causal=decoder.causal)
        x = self.embedding(tokens)
        if self.position.acts == "embedding":
            x = self.position.embed(x, context)
        x = decoder.run(self.dropout(x), context, state)
        x = decoder.norm(x[:, -1:] if last else x)
        if targets is None:
            return Output(self.head(x, self.embedding.weight), None)
        logits, loss = self._loss(x, targets, skip_logits)
        return Output(logits, torch.stack([loss, *context.losses]).sum())

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The stacks of layers: a single causal decoder."""
        return (Stack("decoder", self.layers, self.norm, causal=True),)

    def _loss(self, x: Tensor, targets: Tensor, skip_logits: bool) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V), or empty ones, (B, 0, V), and their mean cross-entropy."""
        table, vocab = self.embedding.weight, self.spec.model.vocab_size
        if not skip_logits:
            logits = self.head(x, table)
            return logits, cross_entropy(logits, targets)
        loss = chunked_cross_entropy(self.head, x, table, targets, chunk_size(vocab, targets.numel()))
        return x.new_empty(len(x), 0, vocab), loss

    def state(self, batch: int, max_length: int | None = None, *, rollback: int = 0) -> DecodeState:
        """Empty decode state for `batch` rows of up to `max_length` tokens (default: max_seq_len).

        `rollback` is the number of tokens that `DecodeState.truncate` can drop at any time.
        """
        max_length = self.spec.model.max_seq_len if max_length is None else max_length
        check_size("batch", batch)
        check_size("max_length", max_length)
        weight = self.embedding.weight
        capacity = Capacity(batch, max_length, weight.dtype, weight.device, rollback)
        return DecodeState([layer.state(capacity) for layer in self.blocks()], batch, max_length)

    def init_weights(self, seed: int = 0) -> None:
        """Initialize all parameters and buffers: `build(spec, device="meta")`, `to_empty`, then this.

        The same seed gives the same weights on every device. ValueError on the meta device.
        """
        init_weights(self, self.spec, seed)

    def blocks(self) -> list[Any]:
        """All layers of all stacks, in execution order."""
        return [layer for stack in self.stacks for layer in stack.layers]


def _added(options: Options, site: Site) -> tuple[Position, Site]:
    """The position scheme added to the embedding, and the site of the layers.

    A scheme is added to the embedding or acts in the mixers. In the second case the embedding gets the identity.
    """
    nothing = Position.Options()
    if options.part.acts == "embedding":
        return site.build(options, Position), site.using(nothing, Position)
    return Position(nothing, site), site
