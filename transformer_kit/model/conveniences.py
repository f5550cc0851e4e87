"""Methods of a model besides its forward pass: generation and the cost report."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Unpack

from torch import Tensor

from registry.contracts import Tokenizer
from transformer_kit.model import card
from transformer_kit.spec.schema import Spec

if TYPE_CHECKING:
    from transformer_kit.generate.decode import Settings
    from transformer_kit.generate.protocol import LanguageModel
    from transformer_kit.generate.text import TextSettings


class Output(NamedTuple):
    """Result of a forward pass."""

    logits: Tensor
    """(B, T, V)."""
    loss: Tensor | None
    """Mean cross-entropy over targets other than -100, 0 without any; None without targets."""


class Conveniences:
    """Methods of `Model` that delegate to other modules."""

    spec: Spec

    def generate(
        self: "LanguageModel", prompts: Sequence[Sequence[int]] | Tensor, **settings: "Unpack[Settings]"
    ) -> list[list[int]]:
        """Continue each prompt by up to `max_new_tokens` ids, ending early at an id in `stop`; the new ids alone.

        `temperature`, `top_k`, `top_p` and `min_p`, or `samplers`, choose the tokens; without them decoding is greedy.
        `transformer_kit.generate.stream` documents all settings.
        Absolute positions end at max_seq_len: each token past it is chosen from the last max_seq_len tokens.
        """
        from transformer_kit.generate import generate

        return generate(self, prompts, **settings)

    def stream(
        self: "LanguageModel", prompts: Sequence[Sequence[int]] | Tensor, **settings: "Unpack[Settings]"
    ) -> Iterator[list[int | None]]:
        """Like `generate`, one step at a time: the next id of each row, None for finished rows."""
        from transformer_kit.generate import stream

        return stream(self, prompts, **settings)

    def generate_text(
        self: "LanguageModel", prompt: str, tokenizer: Tokenizer | None = None, **settings: "Unpack[TextSettings]"
    ) -> str:
        """The continuation of `prompt` as text, without the prompt, as `kit generate` prints it.

        The default tokenizer is that of the folder that the model was loaded from.
        `transformer_kit.generate.complete` streams the text in pieces, and documents all settings.
        """
        from transformer_kit.generate.text import generate_text

        return generate_text(self, prompt, tokenizer, **settings)

    def describe(self) -> str:
        """The cost report of the model, as `kit build` prints it: parts, shapes, parameters, cost."""
        return str(card.card_of(self.spec))

    def _repr_html_(self) -> str:
        return str(card.card_of(self.spec).html())
