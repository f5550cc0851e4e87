"""What the model writes while it learns."""

from collections.abc import Callable

from registry.contracts import Tokenizer
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Sample
from transformer_kit.train.errors import TrainError
from transformer_kit.train.precision import Placement


def writer(model: Model, tokenizer: Tokenizer, sample: Sample, seed: int, placement: Placement) -> Callable[[], str]:
    """A function that lets the model continue the prompt, the same draw each time; returns prompt and continuation.

    Raises TrainError for a prompt that the model cannot take.
    """
    prompt = tokenizer.encode(sample.prompt)
    room = model.spec.model.max_seq_len - len(prompt)
    if not prompt or room < 1:
        limit = model.spec.model.max_seq_len - 1
        raise TrainError(f"sample.prompt must have 1 to {limit} tokens (max_seq_len - 1), got {len(prompt)}")
    stop = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]

    def write() -> str:
        with placement.autocast():
            (new,) = model.generate(
                [prompt],
                max_new_tokens=min(sample.max_new_tokens, room),
                samplers=sample.samplers,
                seed=seed,
                stop=stop,
            )
        return tokenizer.decode([*prompt, *new])

    return write
