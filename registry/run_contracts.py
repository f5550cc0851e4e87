"""What parts of a run promise: text, data, learning, writing. Parts import these from `registry.contracts`.

Letters: B batch, T tokens, V vocab.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer as TorchOptimizer

from registry import options as _options
from registry.part import Part

Spans = tuple[NDArray[Any], Callable[[int], tuple[int, int] | None]]
"""Ids of a text, and for the index of each the characters (begin, end) that it stands for; None where unknown."""


class Tokenizer(Part, ABC):
    """Text <-> token ids. Saved as a Hugging Face `tokenizer.json`, whatever it is made of."""

    family = "tokenizer"
    vocab_size: int
    end_of_text: int | None
    """Id that ends a document; None when there is none."""
    prefix: tuple[int, ...] = ()
    """Ids that `encode` puts before every text, such as a BOS."""
    suffix: tuple[int, ...] = ()
    """Ids that `encode` puts after every text."""
    more_ends: tuple[int, ...] = ()
    """Further ids at which generation stops: those that a model's folder names."""
    invalid_byte: int | None = None
    """Id of the byte 0xFF, where bytes are decoded by runs that are valid as a whole or not at all (ByteFallback)."""
    needs_training: bool = False
    """True as long as `train` has something to learn and was not called."""

    def __init__(self, options: Any, base: Path = Path()) -> None:
        """`base` is the folder that relative paths start from."""
        self.options = options
        self.base = base

    @abstractmethod
    def train(self, texts: Iterator[str]) -> None:
        """Learn from a corpus what is to be learnt; ready at once when there is nothing."""

    @abstractmethod
    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        """Ids of `text`, `prefix` and `suffix` included. ValueError for lone surrogates.

        add_special_tokens    False leaves `prefix` and `suffix` out
        split_special_tokens  True reads special tokens spelt out in the text as text
        """

    def encode_batch(
        self, texts: list[str], *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[NDArray[Any]]:
        """Ids of each text as an array of unsigned integers: `encode` for a corpus, overridden where that is faster."""
        how = {"add_special_tokens": add_special_tokens, "split_special_tokens": split_special_tokens}
        return [np.asarray(self.encode(text, **how), dtype=np.uint32) for text in texts]

    def encode_spans(self, texts: list[str], *, split_special_tokens: bool = False) -> list[Spans] | None:
        """Ids of each text without `prefix` and `suffix`, and the characters that each stands for; None when unknown.

        What is known lets a document be tokenized in parts, in bounded memory and by several threads.
        """
        return None

    @abstractmethod
    def decode(self, tokens: list[int]) -> str:
        """Text of `tokens`; bytes that are not UTF-8 become U+FFFD, special and unknown ids have no text."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into `folder`."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides what `encode` returns; keys the token cache."""

    @property
    def special_tokens(self) -> dict[int, str]:
        """The special tokens that a text may spell out, by id."""
        return {}

    @property
    def ends(self) -> tuple[int, ...]:
        """Every id at which generation stops, `end_of_text` first."""
        first = () if self.end_of_text is None else (self.end_of_text,)
        return tuple(dict.fromkeys((*first, *self.more_ends)))


class Dataset(Part, ABC):
    """A corpus: a source of documents. What turns them into batches is the engine's, the same for all."""

    family = "dataset"

    def __init__(self, options: Any, base: Path) -> None:
        """`base` is the folder that relative paths start from."""
        self.options = options
        self.base = base

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Every document, one at a time, in an order that does not change. ValueError names a bad file and line."""

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The documents as (text, whether the document ends here): overridden where one may not fit into memory."""
        return ((document, True) for document in self.documents())

    def faults(self, whole: bool = False) -> Iterator[str]:
        """What is wrong with the corpus, a line for each document, file and line named: with all of it if `whole`,
        else with what can be looked at in a second.
        """
        try:
            next(iter(self.pieces()), None)
        except ValueError as error:
            yield str(error)

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the content; keys the token cache. Of a large corpus samples of it will do, with sizes and times."""


class Objective(Part, ABC):
    """What training minimises."""

    family = "objective"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def loss(self, model: Any, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum of the losses over the valid targets in `tokens` (B, T+1), and how many there are."""


class Optimizer(Part, ABC):
    """Makes a torch optimizer."""

    family = "optimizer"

    class Options(_options.Options):
        """What every optimizer chooses."""

        lr: _options.Positive = Field(examples=[1e-3, 0.5, 2.0])
        """Peak learning rate; the schedule scales it."""

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def make(self, model: nn.Module) -> TorchOptimizer:
        """A torch optimizer over the model's parameters that require a gradient."""


class Schedule(Part, ABC):
    """Scales the learning rate over the run."""

    family = "schedule"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def scale(self, step: int, steps: int) -> float:
        """Factor in [0, 1] for `step` (from 0) of a run of `steps`."""


class Sampler(Part, ABC):
    """Turns logits into other logits, or chooses. Samplers compose: each narrows what the one before left."""

    family = "sampler"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def apply(self, logits: Tensor) -> Tensor:
        """logits (B, V) -> logits (B, V), with -inf where a token may not be chosen.

        By the logits alone: on a GPU a step is captured and replayed, and what depended on it would stay what it was.
        """


class Tracker(Part, ABC):
    """Writes down what a run measures."""

    family = "tracker"

    def __init__(self, options: Any, folder: Path) -> None:
        """`folder` is where it may write, from the first `log` on. ValueError when it cannot work here."""
        self.options = options
        self.folder = folder

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None:
        """Record `values` of `step`."""

    def rewind(self, step: int) -> None:
        """Forget what was recorded after `step`: the run goes on from there."""

    def close(self) -> None:
        """Flush and let go."""
