"""Generation of text: a prompt in, pieces of its continuation out as they come."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from registry.contracts import Tokenizer
from transformer_kit.data.text_stream import TextStream
from transformer_kit.generate.decode import stream

if TYPE_CHECKING:
    from transformer_kit.model.model import Model


def complete(
    model: "Model",
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    samplers: Sequence[object] = (),
    seed: int | None = None,
    stop: Sequence[int] = (),
    compile: bool = False,
    int8: bool = False,
) -> Iterator[str]:
    """The text that continues `prompt`, in pieces of whole characters; joined they are what `decode` says of all.

    It ends at the tokenizer's end of text, at an id in `stop`, or after `max_new_tokens`. Raises ValueError, before
    anything is computed, as `stream` does, and when the tokenizer has ids that the model does not know.
    """
    known = model.spec.model.vocab_size
    if tokenizer.vocab_size > known:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} ids, more than the model's vocab_size ({known})")
    ends = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
    steps = stream(
        model,
        [tokenizer.encode(prompt)],
        max_new_tokens=max_new_tokens,
        samplers=samplers,
        seed=seed,
        stop=[*ends, *stop],
        vocab=tokenizer.vocab_size,
        compile=compile,
        int8=int8,
    )
    return _pieces(steps, TextStream(tokenizer))


def _pieces(steps: Iterator[list[int | None]], text: TextStream) -> Iterator[str]:
    for (token,) in steps:
        piece = "" if token is None else text.push(token)
        if piece:
            yield piece
    rest = text.finish()
    if rest:
        yield rest
