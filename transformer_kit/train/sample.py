"""Generates sample text during training."""

from collections.abc import Callable

from registry.contracts import Tokenizer
from transformer_kit.generate.sliding import fitting, note
from transformer_kit.model.model import Model
from transformer_kit.spec.place import at
from transformer_kit.spec.schema import RunSpec, Sample, Train
from transformer_kit.train.precision import Placement


def check_prompt(spec: RunSpec, tokenizer: Tokenizer) -> None:
    """SpecError when the model cannot take a sample's prompt."""
    if spec.sample is None:
        return
    with at(spec, "sample", "prompt"):
        if not _ids(spec.sample.prompt, spec.train, tokenizer):
            raise ValueError("must have at least one token, got 0")


def cropped(spec: RunSpec, sample: Sample, tokenizer: Tokenizer) -> str | None:
    """A note where a sample exceeds the context; else None."""
    length = len(_ids(sample.prompt, spec.train, tokenizer))
    told = note(spec.model, length, fitting(spec.model, length, sample.max_new_tokens))
    return None if told is None else f"samples: {told}"


def writer(model: Model, tokenizer: Tokenizer, sample: Sample, train: Train, placement: Placement) -> Callable[[], str]:
    """A function that generates a continuation of the prompt with a fixed seed; returns prompt and continuation."""
    prompt = _ids(sample.prompt, train, tokenizer)
    count = fitting(model.spec.model, len(prompt), sample.max_new_tokens)

    def write() -> str:
        with placement.autocast():
            (new,) = model.generate(
                [prompt],
                max_new_tokens=count,
                samplers=sample.samplers,
                seed=train.seed,
                stop=tokenizer.ends,
                vocab=min(tokenizer.vocab_size, model.spec.model.vocab_size),
            )
        return tokenizer.decode([*prompt, *new])

    return write


def _ids(prompt: str, train: Train, tokenizer: Tokenizer) -> list[int]:
    """Encode the prompt like the corpus."""
    return tokenizer.encode(
        prompt, add_special_tokens=train.add_special_tokens, split_special_tokens=train.split_special_tokens
    )
