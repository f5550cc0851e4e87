"""What users do with a model beside calling it: generate, look at its card."""

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
    """What a forward pass returns."""

    logits: Tensor
    """(B, T, V)."""
    loss: Tensor | None
    """Mean cross-entropy over the targets that count, 0 when none does; None without targets."""


class Conveniences:
    """Methods of `Model` that compute nothing themselves."""

    spec: Spec

    def generate(
        self: "LanguageModel", prompts: Sequence[Sequence[int]] | Tensor, **settings: "Unpack[Settings]"
    ) -> list[list[int]]:
        """Continue each prompt by up to `max_new_tokens` ids, ending early at an id in `stop`; the new ids alone.

        `temperature`, `top_k`, `top_p` and `min_p`, or `samplers`, say how tokens are chosen; without them it is the
        likeliest each time. `transformer_kit.generate.stream` has all settings.
        Absolute positions end at max_seq_len: each token past it is chosen from the last max_seq_len tokens.
        """
        from transformer_kit.generate import generate

        return generate(self, prompts, **settings)

    def stream(
        self: "LanguageModel", prompts: Sequence[Sequence[int]] | Tensor, **settings: "Unpack[Settings]"
    ) -> Iterator[list[int | None]]:
        """As `generate`, one step at a time: the next id of each row, None for rows that have ended."""
        from transformer_kit.generate import stream

        return stream(self, prompts, **settings)

    def generate_text(
        self: "LanguageModel", prompt: str, tokenizer: Tokenizer | None = None, **settings: "Unpack[TextSettings]"
    ) -> str:
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
