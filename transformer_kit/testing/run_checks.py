"""Checks of parts outside the model: data and tokenizers, optimizers and schedules, samplers, trackers."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from registry import core
from registry.options import Options
from transformer_kit.testing.carriers import LENGTH, ROWS, plain_model, tokens
from transformer_kit.testing.checks import check
from transformer_kit.testing.values import STRINGS, minimal, variants

TEXTS = (
    "",
    "the cat sat on the mat, and the cat sat",
    "  spaces\tand\r\nlines\n\n",
    "naïve café, Ωμέγα, 漢字, 🙂🏽, e\u0301",
    "<|endoftext|> [EOS] </s> is text here",
    "\x00\x07 control",
)
VOCAB = 11


@contextmanager
def corpus() -> Iterator[Path]:
    """A folder with the files that options name, valid as text and as JSON lines; and a `tokenizer.json`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, file in enumerate(STRINGS):
            fields = ", ".join(f'"{f}": "{f} {i} {{n}}"' for f in ("text", *STRINGS))
            lines = ["{" + fields.replace("{n}", str(n)) + "}\n" for n in range(3)]
            (folder / file).write_text("".join(lines), "utf-8")
        trained(minimal(core.get("tokenizer", core.names("tokenizer")[0])), folder).save(folder)
        yield folder


def trained(options: Options, base: Path) -> Any:
    """The tokenizer, ready to use."""
    tokenizer = options.part(options, base)
    if tokenizer.needs_training:
        tokenizer.train(iter(TEXTS * 3))
    return tokenizer


@check("tokenizer")
def text_comes_back(part: Any) -> None:
    """Any text is encoded into ids of the vocabulary and decoded to itself; a batch equals single texts."""
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    with corpus() as base:
        tokenizer = trained(minimal(part), base)
        assert not tokenizer.needs_training, "still needs training after it"
        for text, batched in zip(TEXTS, tokenizer.encode_batch(list(TEXTS), **plain), strict=True):
            ids = tokenizer.encode(text, **plain)
            assert all(0 <= i < tokenizer.vocab_size for i in ids), f"{text!r}: ids outside the vocabulary"
            assert tokenizer.decode(ids) == text, f"{text!r} comes back as {tokenizer.decode(ids)!r}"
            assert batched.tolist() == ids, f"{text!r}: a batch gives other ids than one text"
            assert tokenizer.end_of_text not in ids, f"{text!r}: contains the end of text"


@check("tokenizer")
def special_tokens_are_read(part: Any) -> None:
    """A special token in the text is its single id; every text has prefix and suffix; both can be turned off."""
    with corpus() as base:
        tokenizer = trained(minimal(part), base)
        for text in (*TEXTS, *tokenizer.special_tokens.values()):
            body = tokenizer.encode(text, add_special_tokens=False)
            assert tokenizer.encode(text) == [*tokenizer.prefix, *body, *tokenizer.suffix], f"{text!r}: not surrounded"
            assert tokenizer.encode_batch([text])[0].tolist() == tokenizer.encode(text), f"{text!r}: a batch differs"
        for number, token in tokenizer.special_tokens.items():
            assert tokenizer.encode(token, add_special_tokens=False) == [number], f"{token!r} is not its one id"
            assert number not in tokenizer.encode(token, split_special_tokens=True)[len(tokenizer.prefix) :], (
                f"{token!r} does not stay text"
            )


@check("tokenizer")
def spans_lie_in_order(part: Any) -> None:
    """Spans of tokens in the text are in order, with the ids of `encode`."""
    with corpus() as base:
        tokenizer = trained(minimal(part), base)
        for text, (ids, span) in zip(TEXTS, tokenizer.encode_spans(list(TEXTS)) or (), strict=False):
            assert ids.tolist() == tokenizer.encode(text, add_special_tokens=False), f"{text!r}: other ids with spans"
            places = [span(i) for i in range(len(ids))]
            ends = [0, *(end for _, end in places)]
            assert ends == sorted(ends), f"{text!r}: spans go back: {places}"
            assert all(0 <= a <= b <= len(text) for a, b in places), f"{text!r}: spans leave the text: {places}"


@check("tokenizer")
def tokenizer_saved(part: Any) -> None:
    """`save` writes tokenizer.json, and equal training gives an equal fingerprint."""
    with corpus() as base:
        one, two = (trained(minimal(part), base) for _ in range(2))
        one.save(base)
        assert (base / "tokenizer.json").is_file(), "writes no tokenizer.json"
        assert one.fingerprint == two.fingerprint, "the same training has another fingerprint"


@check("dataset")
def documents_repeat(part: Any) -> None:
    """Documents come in the same order each time, and their pieces, joined, are the documents."""
    with corpus() as base:
        one, two = (part(minimal(part), base) for _ in range(2))
        assert one.fingerprint == two.fingerprint, "the same corpus has another fingerprint"
        documents = [d for d, _ in zip(one.documents(), range(20), strict=False)]
        assert documents, "has no documents"
        assert documents == [d for d, _ in zip(two.documents(), range(20), strict=False)], "the order changes"
        assert documents == _joined(one, len(documents)), "pieces put together are other documents"


def _joined(dataset: Any, count: int) -> list[str]:
    documents, parts = [], []
    for text, ends in dataset.pieces():
        parts.append(text)
        if ends:
            documents.append("".join(parts))
            parts = []
        if len(documents) == count:
            break
    return documents


@check("schedule")
def scales_within_bounds(part: Any) -> None:
    """The factor is in [0, 1] at every step of any run, and not always zero."""
    for what, options in variants(part):
        for steps in (1, 2, 5, 100):
            scales = [part(options).scale(step, steps) for step in range(steps + 1)]
            assert all(0.0 <= s <= 1.0 for s in scales), f"{what}: leaves [0, 1] in {steps} steps: {scales}"
            assert any(scales[:steps]), f"{what}: is zero in all of {steps} steps"


@check("sampler")
def leaves_a_choice(part: Any) -> None:
    """At least one token stays, excluded tokens stay so, nothing becomes NaN, and the input is not overwritten."""
    logits = torch.randn(5, VOCAB, generator=torch.Generator().manual_seed(0)) * 3
    logits[1] = 0.0  # all alike
    logits[2, 1:] = float("-inf")  # one left
    logits[3, 4] = 1e30  # one beyond all others
    logits[4, ::2] = float("-inf")
    for what, options in variants(part):
        before = logits.clone()
        found = part(options).apply(logits)
        assert torch.equal(logits, before), f"{what}: overwrites its input"
        assert found.shape == logits.shape, f"{what}: {tuple(logits.shape)} became {tuple(found.shape)}"
        assert not (found.isnan() | found.isposinf()).any(), f"{what}: NaN or infinity"
        assert found.isfinite().any(-1).all(), f"{what}: no token is left"
        assert found[logits.isneginf()].isneginf().all(), f"{what}: restores excluded tokens"
        for row in range(len(logits)):
            assert torch.equal(part(options).apply(logits[row : row + 1])[0], found[row]), f"{what}: rows interact"


class Bowl(nn.Module):
    """A quadratic with its minimum at zero, for any optimizer.

    Its parameters have the names and shapes of a small model's, since optimizers may select by either: an embedding,
    matrices, vectors, a scalar, and a frozen one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Module()
        self.embedding.table = skip_init(nn.Embedding, VOCAB, 4)
        self.layers = nn.ModuleList([nn.Module()])
        self.layers[0].mixer = nn.ModuleDict({name: skip_init(nn.Linear, 4, 4) for name in ("q", "out")})
        self.layers[0].gain = nn.Parameter(torch.empty(()))
        self.norm = skip_init(nn.LayerNorm, 4)
        self.head = nn.ModuleDict({"out": skip_init(nn.Linear, 4, VOCAB, bias=False)})
        self.frozen = nn.Parameter(torch.empty(2), requires_grad=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.linspace(1, 3, parameter.numel()).reshape(parameter.shape))

    def forward(self) -> Tensor:
        return torch.stack([p.square().sum() for p in self.learning()]).sum()

    def learning(self) -> list[nn.Parameter]:
        """The parameters that are not frozen."""
        return [p for p in self.parameters() if p.requires_grad]


@check("optimizer")
def walks_downhill(part: Any) -> None:
    """Steps lower a quadratic; every trainable parameter is in one group, and frozen ones stay."""
    bowl = Bowl()
    optimizer = part(minimal(part, lr=0.01)).make(bowl)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(set(held)), "a parameter is in two groups"
    left = [name for name, p in bowl.named_parameters() if p.requires_grad and id(p) not in held]
    assert not left, f"in no group, though they learn: {', '.join(left)}"
    before, frozen = float(bowl().detach()), bowl.frozen.clone()
    walk(bowl, optimizer, 10)
    assert float(bowl().detach()) < before, "ten steps do not lower a quadratic"
    assert torch.equal(bowl.frozen, frozen), "a frozen parameter moved"


@check("optimizer")
def resumes_exactly(part: Any) -> None:
    """Saved and loaded between steps, it continues as without interruption."""
    straight, halved = Bowl(), Bowl()
    walk(straight, part(minimal(part, lr=0.01)).make(straight), 6)
    optimizer = part(minimal(part, lr=0.01)).make(halved)
    walk(halved, optimizer, 3)
    resumed = part(minimal(part, lr=0.01)).make(halved)
    resumed.load_state_dict(optimizer.state_dict())
    walk(halved, resumed, 3)
    for one, two in zip(straight.parameters(), halved.parameters(), strict=True):
        assert torch.equal(one, two), "resumed steps differ from uninterrupted ones"


def walk(bowl: Bowl, optimizer: Any, steps: int) -> None:
    """Take some steps downhill."""
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(bowl())
        optimizer.step()


@check("tracker")
def writes_something(part: Any) -> None:
    """Logged records are in the run's folder after closing; rewinding before a new start is allowed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tracker = part(minimal(part), folder)
        tracker.log(1, {"loss": 2.5})
        tracker.log(2, {"loss": 2.0})
        tracker.close()
        written = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        assert written, "nothing was written into the folder"
        again = part(minimal(part), folder)
        again.rewind(1)
        again.log(2, {"loss": 1.0})
        again.close()


@check("objective")
def counts_what_it_sums(part: Any) -> None:
    """The loss is a finite sum over the number of targets it returns, and each used parameter gets its gradient."""
    model = plain_model()
    ids = tokens(model, length=LENGTH)
    divided = (torch.arange(LENGTH) // 5).expand_as(ids) - 1
    for what, options in variants(part):
        for segments in (None, divided):
            loss, count = part(options).loss(model, ids, segments)
            assert loss.shape == (), f"{what}: a loss of shape {tuple(loss.shape)} is no scalar"
            assert torch.isfinite(loss), f"{what}: a loss of {float(loss.detach())} is not finite"
            assert 0 < int(count) <= ROWS * LENGTH, f"{what}: counts {int(count)} targets"
            assert loss.requires_grad, f"{what}: has no gradient"
