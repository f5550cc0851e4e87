"""The model: token ids to logits, assembled from parts. Read order is execution order.

Letters: B batch, T query tokens, D d_model, V vocab.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from registry.context import Context
from registry.contracts import Block, Embedding, Head, Norm, Position, Site, Tokenizer
from registry.options import Options
from registry.state import Capacity, DecodeState
from transformer_kit.model import card
from transformer_kit.model.init import init_weights
from transformer_kit.model.inputs import check_size, check_targets, check_tokens
from transformer_kit.model.loss import chunk_size, chunked_cross_entropy, cross_entropy
from transformer_kit.spec.schema import Spec

if TYPE_CHECKING:
    from transformer_kit.generate.decode import Settings
    from transformer_kit.generate.text import TextSettings


class Output(NamedTuple):
    """What a forward pass returns."""

    logits: Tensor
    """(B, T, V)."""
    loss: Tensor | None
    """Mean cross-entropy over the targets that count, 0 when none does; None without targets."""


class Model(nn.Module):
    """logits = head(norm(layers(position(embedding(tokens))))). Made by `build`."""

    def __init__(self, spec: Spec, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.folder: Path | None = None
        """Where it was loaded from; its tokenizer lies there."""
        model = spec.model
        self.embedding = site.build(model.embedding, Embedding)
        self.position, site = _added(model.position, site)
        self.dropout = nn.Dropout(model.dropout) if model.dropout else nn.Identity()
        self.layers = nn.ModuleList(
            replace(site, at=partial(int, i)).build(block, Block) for i, block in enumerate(model.layers.blocks)
        )
        self.norm = site.build(model.final_norm, Norm)
        table = getattr(self.embedding, "weight", None)  # None when the embedding is what is wrong
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

        targets      (B, T) ids that should come next; -100 does not count
        segments     (B, T) which document each token belongs to: tokens see their own only; -1 is padding
        state        what came before, from `self.state`; taken in and advanced in place
        last         logits of the last token alone, (B, 1, V)
        skip_logits  the loss alone, for training: logits are computed in chunks and never all kept, and those returned
                     are of no token, (B, 0, V); the gradient of this loss can be taken once

        Raises ValueError for what is none of these, for ids outside the vocabulary (on a CPU) and for more tokens
        than max_seq_len where positions end there; where they go on, as rotary ones do, that is a warning.
        """
        check_tokens(self.spec.model, tokens, segments, state)
        if targets is not None:
            check_targets(self.spec.model, tokens, targets)
        context = (Context.of if state is None else state.context)(tokens, segments)
        x = self.dropout(self.position.embed(self.embedding(tokens), context))
        for i, layer in enumerate(self.layers):
            x = layer(x, context, None if state is None else state.layers[i])
        x = self.norm(x[:, -1:] if last else x)
        if targets is None:
            return Output(self.head(x, self.embedding.weight), None)
        logits, loss = (self._chunked if skip_logits else self._whole)(x, targets)
        return Output(logits, torch.stack([loss, *context.losses]).sum())

    def _whole(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, T, V) and their mean cross-entropy."""
        logits = self.head(x, self.embedding.weight)
        return logits, cross_entropy(logits, targets)

    def _chunked(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The same without logits, (B, 0, V)."""
        vocab = self.spec.model.vocab_size
        loss = chunked_cross_entropy(self.head, x, self.embedding.weight, targets, chunk_size(vocab, targets.numel()))
        return x.new_empty(len(x), 0, vocab), loss

    def state(self, batch: int, max_length: int | None = None, *, rollback: int = 0) -> DecodeState:
        """Empty decode state for `batch` rows of up to `max_length` tokens (max_seq_len when not given).

        `rollback` is how many tokens `DecodeState.truncate` must be able to drop at any time.
        """
        max_length = self.spec.model.max_seq_len if max_length is None else max_length
        check_size("batch", batch)
        check_size("max_length", max_length)
        weight = self.embedding.weight
        capacity = Capacity(batch, max_length, weight.dtype, weight.device, rollback)
        return DecodeState([layer.state(capacity) for layer in self._blocks()], batch, max_length)

    def generate(self, prompts: Sequence[Sequence[int]] | Tensor, **settings: "Unpack[Settings]") -> list[list[int]]:
        """Continue each prompt by up to `max_new_tokens` ids, ending early at an id in `stop`; the new ids alone.

        `temperature`, `top_k`, `top_p` and `min_p`, or `samplers`, say how tokens are chosen; without them it is the
        likeliest each time. `transformer_kit.generate.stream` has all settings.
        Absolute positions end at max_seq_len: each token past it is chosen from the last max_seq_len tokens.
        """
        from transformer_kit.generate import generate

        return generate(self, prompts, **settings)

    def stream(
        self, prompts: Sequence[Sequence[int]] | Tensor, **settings: "Unpack[Settings]"
    ) -> Iterator[list[int | None]]:
        """As `generate`, one step at a time: the next id of each row, None for rows that have ended."""
        from transformer_kit.generate import stream

        return stream(self, prompts, **settings)

    def init_weights(self, seed: int = 0) -> None:
        """Fill all parameters and buffers with fresh values: `build(spec, device="meta")`, `to_empty`, then this.

        The same seed gives the same weights on every device. ValueError where there is no memory to fill.
        """
        init_weights(self, self.spec, seed)

    def generate_text(self, prompt: str, tokenizer: Tokenizer | None = None, **settings: "Unpack[TextSettings]") -> str:
        """The text that continues `prompt`, without the prompt; what `kit generate` writes after it.

        The tokenizer is that of the folder that the model was loaded from when none is given.
        `transformer_kit.generate.complete` gives the text in pieces, as it comes, and has all settings.
        """
        from transformer_kit.generate.text import generate_text

        return generate_text(self, prompt, tokenizer, **settings)

    def describe(self) -> str:
        """The card: parts, shapes, parameters, cost; what `kit build` prints."""
        return str(card.card_of(self.spec))

    def _repr_html_(self) -> str:
        return str(card.card_of(self.spec).html())

    def _blocks(self) -> list[Any]:
        return list(self.layers)


def _added(options: Options, site: Site) -> tuple[Position, Site]:
    """The position scheme where it is added to the embedding, and the site of the layers, which then have none.

    A scheme that acts in the mixers is theirs, and what is added to the embedding is nothing.
    """
    nothing = Position.Options()
    if options.part.acts == "embedding":
        return site.build(options, Position), site.using(nothing, Position)
    return Position(nothing, site), site
