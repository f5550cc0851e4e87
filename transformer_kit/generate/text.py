"""Generation of text: streams the continuation of a prompt."""

from collections.abc import Iterator, Sequence
from typing import Any, Unpack

from registry.contracts import Tokenizer
from transformer_kit.data.text_stream import TextStream
from transformer_kit.data.tokenizer_file import load_tokenizer
from transformer_kit.generate.decode import stream
from transformer_kit.generate.defaults import Defaults, defaults
from transformer_kit.generate.given import Sampling, narrowing
from transformer_kit.generate.protocol import LanguageModel
from transformer_kit.generate.sliding import fitting

FAR = 128
"""Default number of new tokens."""


class TextSettings(Sampling, total=False):
    """Settings of `complete`, which documents each."""

    max_new_tokens: int | None
    samplers: Sequence[object] | None
    seed: int | None
    stop: Sequence[int]
    add_special_tokens: bool
    split_special_tokens: bool
    compile: bool


def generate_text(
    model: LanguageModel, prompt: str, tokenizer: Tokenizer | None = None, **settings: Unpack[TextSettings]
) -> str:
    """Like `complete`, in one string. ValueError without a tokenizer, given or in the model's folder."""
    if tokenizer is None:
        if model.folder is None:
            raise ValueError("the model was not loaded from a folder, so it has no tokenizer; give `tokenizer`")
        tokenizer = load_tokenizer(model.folder)
    return "".join(complete(model, tokenizer, prompt, **settings))


def complete(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int | None = None,
    samplers: Sequence[object] | None = None,
    seed: int | None = None,
    stop: Sequence[int] = (),
    add_special_tokens: bool = True,
    split_special_tokens: bool = False,
    compile: bool = False,
    **sampling: Unpack[Sampling],
) -> Iterator[str]:
    """Stream the continuation of `prompt` in whole characters: decode(prompt + new) without decode(prompt).

    It ends at an end token of the tokenizer, at an id in `stop`, or after `max_new_tokens`. `samplers`, or keywords
    such as temperature, choose the tokens. Defaults come from generation_config.json in the model's folder; without
    it, decoding is greedy. `Tokenizer.encode` documents how the prompt is encoded. Raises ValueError as `stream` does,
    before it computes anything, and when the tokenizer has ids outside the model's vocabulary.
    """
    _check_ids(model, tokenizer)
    if not isinstance(prompt, str):
        raise ValueError(f"the prompt must be text, got {prompt!r:.60}; `generate` takes token ids, and several rows")
    ids = tokenizer.encode(prompt, add_special_tokens=add_special_tokens, split_special_tokens=split_special_tokens)
    asked = defaults(model.folder)
    steps = stream(
        model,
        [ids],
        max_new_tokens=far(model, len(ids), asked) if max_new_tokens is None else max_new_tokens,
        samplers=_samplers(samplers, {**sampling}, asked),
        seed=seed,
        stop=[*tokenizer.ends, *stop],
        vocab=tokenizer.vocab_size,
        compile=compile,
    )
    return _pieces(steps, TextStream(tokenizer, ids))


def far(model: LanguageModel, length: int, asked: Defaults) -> int:
    """Default number of new tokens after a prompt of `length`: the folder's max_new_tokens, as far as they fit."""
    return fitting(model.spec.model, length, FAR if asked.max_new_tokens is None else asked.max_new_tokens)


def _samplers(samplers: Sequence[object] | None, sampling: dict[str, Any], asked: Defaults) -> Sequence[object]:
    """The given samplers, in a list or by keywords; else those of the folder."""
    if all(value is None for value in sampling.values()) and sampling.keys() <= Sampling.__annotations__.keys():
        return asked.samplers if samplers is None else samplers
    return narrowing(samplers or (), sampling, [*TextSettings.__annotations__])


def _check_ids(model: LanguageModel, tokenizer: Tokenizer) -> None:
    known = model.spec.model.vocab_size
    if tokenizer.vocab_size > known:
        raise ValueError(f"the tokenizer has {tokenizer.vocab_size} ids, more than the model's vocab_size ({known})")


def spelled(tokenizer: Tokenizer, prompt: str) -> list[str]:
    """The special tokens that `prompt` contains, each once."""
    if not tokenizer.special_tokens:
        return []
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    return [tokenizer.special_tokens[i] for i in dict.fromkeys(ids) if i in tokenizer.special_tokens]


def _pieces(steps: Iterator[list[int | None]], text: TextStream) -> Iterator[str]:
    for (token,) in steps:
        piece = "" if token is None else text.push(token)
        if piece:
            yield piece
    rest = text.finish()
    if rest:
        yield rest
