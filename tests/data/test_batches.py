"""Batches are a function of seed and step; epochs are complete; splits are disjoint; documents are told apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.contracts import Tokenizer
from tests.data.corpora import Documents
from transformer_kit.data.batches import Batches, spans
from transformer_kit.data.prepare import prepare
from transformer_kit.data.store import TokenStore


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A corpus whose tokens are all different."""

    class Numbers(Tokenizer):
        vocab_size, end_of_text, fingerprint = 5000, None, "numbers"

        def train(self, texts: object) -> None: ...
        def encode(self, text: str, **how: bool) -> list[int]:
            return [int(word) for word in text.split()]

        def decode(self, tokens: list[int]) -> str:
            return " ".join(map(str, tokens))

        def save(self, folder: Path) -> None: ...

    dataset = Documents(" ".join(map(str, range(2000))), " ".join(map(str, range(2000, 5000))))
    return prepare(dataset, Numbers(Tokenizer.Options()), tmp_path_factory.mktemp("cache"))


@settings(max_examples=30)
@given(st.integers(10, 300), st.integers(1, 9), st.integers(0, 5))
def test_every_window_once_an_epoch(numbered: TokenStore, seq_len: int, batch_size: int, epoch: int) -> None:
    batches = Batches(numbered, "train", batch_size=batch_size, seq_len=seq_len, validation=0.2, seed=3)
    first, last = epoch * batches.windows, (epoch + 1) * batches.windows
    rows = [
        int(row[0])
        for step in range(first // batch_size, -(-last // batch_size))
        for i, row in enumerate(batches.batch(step)[0])
        if first <= step * batch_size + i < last
    ]
    assert sorted(rows) == [i * seq_len for i in range(batches.windows)]
    assert batches.windows == (batches.tokens - 1) // seq_len


@settings(max_examples=30)
@given(st.integers(1, 199), st.integers(1, 40), st.booleans())
def test_a_pass_over_the_validation_share_holds_every_target_once(
    numbered: TokenStore, seq_len: int, batch_size: int, regions: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformer_kit.data.batches.REGION_TOKENS", 200 if regions else 1 << 16)
        held = Batches(
            numbered,
            "validation",
            batch_size=batch_size,
            seq_len=seq_len,
            validation=0.2,
            document_mask=batch_size > 20,
        )
        expected = [t for a, b in spans(5000, 0.2, "validation") for t in range(a + 1, b)]
    batches = [held.batch(step)[0] for step in range(held.per_pass)]
    assert sorted(t for batch in batches for t in batch[:, 1:].flatten().tolist()) == expected
    assert all((batch.diff(dim=1) == 1).all() for batch in batches)
    assert torch.equal(held.batch(held.per_pass)[0], batches[0])


def test_rows_are_consecutive_tokens(numbered: TokenStore) -> None:
    tokens, segments = Batches(numbered, "train", batch_size=4, seq_len=16, validation=0.1).batch(7)
    assert tokens.shape == (4, 17)
    assert tokens.dtype == torch.int64
    assert segments is None
    assert (tokens.diff(dim=1) == 1).all()


def test_a_batch_does_not_depend_on_what_was_read_before(numbered: TokenStore) -> None:
    def fresh() -> Batches:
        return Batches(numbered, "train", batch_size=4, seq_len=16, validation=0.1, seed=5)

    walked = fresh()
    walk = [walked.batch(step)[0] for step in range(200)]
    assert all(torch.equal(fresh().batch(step)[0], walk[step]) for step in (199, 0, 73))


def test_rows_do_not_depend_on_the_batch_size(numbered: TokenStore) -> None:
    large = Batches(numbered, "train", batch_size=8, seq_len=16, validation=0.1)
    small = Batches(numbered, "train", batch_size=2, seq_len=16, validation=0.1)
    assert torch.equal(large.batch(2)[0], torch.cat([small.batch(step)[0] for step in range(8, 12)]))


def test_seeds_and_epochs_change_the_order_of_training_only(numbered: TokenStore) -> None:
    def rows(split: str, seed: int, epoch: int = 0) -> list[int]:
        batches = Batches(numbered, split, batch_size=10, seq_len=16, validation=0.4, seed=seed)
        steps = range(epoch * batches.windows // 10, epoch * batches.windows // 10 + 5)
        return [int(row[0]) for step in steps for row in batches.batch(step)[0]]

    assert rows("train", 1) != rows("train", 2)
    assert rows("train", 1, epoch=0) != rows("train", 1, epoch=10)
    assert rows("validation", 1) == rows("validation", 2)
    assert rows("train", 1) != sorted(rows("train", 1))


@given(st.integers(1, 50_000_000), st.floats(0, 1, exclude_max=True))
def test_splits_cover_the_corpus_and_share_nothing(n: int, share: float) -> None:
    train, validation = spans(n, share, "train"), spans(n, share, "validation")
    borders = np.stack([train, validation], axis=1).reshape(-1, 2)
    assert borders[0, 0] == 0
    assert borders[-1, 1] == n
    assert (borders[1:, 0] == borders[:-1, 1]).all()
    assert (borders[:, 0] <= borders[:, 1]).all()
    kept = int((validation[:, 1] - validation[:, 0]).sum())
    assert abs(kept - n * share) <= len(validation)


def test_large_corpora_are_validated_in_many_places() -> None:
    assert len(spans(20_000_000, 0.05, "validation")) == 15
    assert len(spans(10**12, 0.05, "validation")) == 64


def test_windows_stay_in_their_region(monkeypatch: pytest.MonkeyPatch, numbered: TokenStore) -> None:
    monkeypatch.setattr("transformer_kit.data.batches.REGION_TOKENS", 100)
    train = Batches(numbered, "train", batch_size=1, seq_len=7, validation=0.2)
    held = {int(t) for a, b in spans(5000, 0.2, "validation") for t in range(a, b)}
    assert len(held) == 1000
    seen = {int(t) for step in range(train.windows) for t in train.batch(step)[0][0]}
    assert not seen & held
    assert len(seen) > 3900


@settings(max_examples=30)
@given(st.lists(st.text("xyz", max_size=9), min_size=4, max_size=30).filter(lambda d: sum(map(len, d)) > 20))
def test_segments_number_the_documents_of_a_row(
    tmp_path_factory: pytest.TempPathFactory, bytewise: Tokenizer, texts: list[str]
) -> None:
    store = prepare(Documents(*texts), bytewise, tmp_path_factory.mktemp("cache"))
    batches = Batches(store, "train", batch_size=3, seq_len=8, validation=0.0, document_mask=True)
    for step in range(3):
        tokens, segments = batches.batch(step)
        assert segments is not None
        ended = (tokens == bytewise.end_of_text).long().cumsum(1)
        expected = torch.cat([torch.zeros(3, 1, dtype=torch.long), ended[:, :-1]], dim=1)
        assert torch.equal(segments, expected)


@pytest.mark.parametrize(
    ("split", "validation", "seq_len", "expected"),
    [
        ("train", 0.0, 5000, "the corpus has 5000 tokens and a sequence needs seq_len . 1 = 5001"),
        ("validation", 0.01, 50, "the validation share has runs of at most 50 tokens .*needs seq_len . 1 = 51; raise"),
        ("validation", 0.0, 50, "the validation share has runs of at most 0 tokens"),
        ("train", 0.9, 900, "the train share has runs of at most 500 tokens .*; lower `validation`"),
    ],
)
def test_too_little_text_is_said_with_numbers(
    numbered: TokenStore, split: str, validation: float, seq_len: int, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        Batches(numbered, split, batch_size=2, seq_len=seq_len, validation=validation)


def test_bytes_per_token_of_a_share(tmp_path: Path, trained_bpe: Tokenizer) -> None:
    plain = "a line and more lines, indented\n" * 3000
    dense = "0123456789" * 8000  # no merges: a token a byte
    store = prepare(Documents(plain, dense), trained_bpe, tmp_path)
    share = len(trained_bpe.encode(dense)) / len(store)
    train = Batches(store, "train", batch_size=1, seq_len=8, validation=share)
    held = Batches(store, "validation", batch_size=1, seq_len=8, validation=share)
    assert held.bytes_per_token == pytest.approx(1, rel=0.03)
    assert train.bytes_per_token > 2
    total = train.bytes_per_token * train.tokens + held.bytes_per_token * held.tokens
    assert total == pytest.approx(len(plain) + len(dense))
    assert store.bytes_per_token == pytest.approx((len(plain) + len(dense)) / len(store))
