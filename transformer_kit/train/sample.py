"""What the model writes while it learns."""

from collections.abc import Callable

from registry.contracts import Tokenizer
from transformer_kit.generate.sliding import slides
from transformer_kit.model.model import Model
from transformer_kit.spec.place import at
from transformer_kit.spec.schema import RunSpec, Sample
from transformer_kit.train.precision import Placement


def check_prompt(spec: RunSpec, tokenizer: Tokenizer) -> None:
    """SpecError for a prompt of the page that its model cannot take."""
    if spec.sample is None:
        return
    limit = spec.model.max_seq_len - 1
    with at(spec, "sample", "prompt"):
        length = len(tokenizer.encode(spec.sample.prompt))
        if not length or (length > limit and not slides(spec.model)):
            raise ValueError(f"must have 1 to {limit} tokens (max_seq_len - 1), got {length}")


def writer(model: Model, tokenizer: Tokenizer, sample: Sample, seed: int, placement: Placement) -> Callable[[], str]:
    """A function that lets the model continue the prompt, the same draw each time; returns prompt and continuation."""
    prompt = tokenizer.encode(sample.prompt)
    size = model.spec.model
    count = sample.max_new_tokens if slides(size) else min(sample.max_new_tokens, size.max_seq_len - len(prompt))
    stop = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]

    def write() -> str:
        with placement.autocast():
            (new,) = model.generate(
                [prompt],
                max_new_tokens=count,
                samplers=sample.samplers,
                seed=seed,
                stop=stop,
            )
        return tokenizer.decode([*prompt, *new])

    return write
