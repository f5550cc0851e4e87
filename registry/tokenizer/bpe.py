"""Byte-level byte-pair encoding (Sennrich et al. 2015, arXiv:1508.07909; Radford et al. 2019)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tokenizers
from annotated_types import Ge, Le, MinLen
from pydantic import Field, model_validator
from tokenizers import decoders, models, pre_tokenizers, trainers

from registry.contracts import Tokenizer
from registry.core import register
from registry.files import located
from registry.options import Count, Positive
from registry.tokenizer._shared import END_OF_TEXT, FileTokenizer, check_unicode, interruptible

BATCH = 256


@register
class Bpe(FileTokenizer):
    """Byte-level BPE: starts from the 256 bytes and repeatedly merges the most frequent pair of neighbors."""

    class Options(Tokenizer.Options):
        """Training options, or the file of a trained tokenizer."""

        vocab_size: Annotated[int, Ge(257), Le(1_048_576)] = 8192
        """Vocabulary size to train; smaller if the corpus is too small."""
        min_frequency: Count = 2
        """Minimum number of occurrences of a merged pair."""
        max_mb: Positive | None = Field(default=None, examples=[1e-4, 1.0])
        """Megabytes of the corpus to train on, from its start (default: all)."""
        file: Annotated[str, MinLen(1)] | None = Field(default=None, examples=["tokenizer.json"])
        """Path of a `tokenizer.json` to load instead of training, relative to the spec."""
        end_of_text: Annotated[str, MinLen(1)] | None = None
        """End-of-text token (default: `<|endoftext|>` when trained, the file's own when loaded)."""

        @model_validator(mode="after")
        def _either(self) -> "Bpe.Options":
            training = ("vocab_size", "min_frequency", "max_mb")
            changed = [n for n in training if getattr(self, n) != type(self).model_fields[n].default]
            if self.file is not None and changed:
                raise ValueError(f"{', '.join(changed)} has no effect on a tokenizer from a file; remove it or `file`")
            return self

    def __init__(self, options: Options, base: Path = Path()) -> None:
        super().__init__(options, base)
        self.vocab_size, self.end_of_text, self.needs_training = options.vocab_size, None, True
        if options.file is not None:
            self.read(located(options.file, base), options.end_of_text)

    def train(self, texts: Iterator[str]) -> None:
        """Learn the merges, deterministically. Does nothing if the tokenizer is loaded or trained already."""
        if not self.needs_training:
            return
        end = self.options.end_of_text or END_OF_TEXT
        core = tokenizers.Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.options.vocab_size,
            min_frequency=self.options.min_frequency,
            special_tokens=[end],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        interruptible(lambda: core.train_from_iterator(self._batches(texts), trainer))
        self.use(core, end)

    def _batches(self, texts: Iterator[str]) -> Iterator[list[str]]:
        left = float("inf") if self.options.max_mb is None else self.options.max_mb * 1e6
        batch: list[str] = []
        for text in texts:
            check_unicode(text)
            batch.append(text)
            left -= len(text.encode())
            if len(batch) == BATCH or left <= 0:
                yield batch
                batch = []
            if left <= 0:
                return
        yield batch
