"""The validation loss: the mean over every target of the share, whatever the batch size."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.train.runs import Recorder
from transformer_kit import load
from transformer_kit.data.batches import spans
from transformer_kit.spec.schema import RunSpec
from transformer_kit.train import run

SEQ_LEN = 16
ONE = {"gradient_accumulation": 1}


def _measured(
    spec: Callable[..., RunSpec], corpus: Path, out: Path, batch_size: int, report: Recorder, document_mask: bool
) -> float:
    page = spec(
        data={"type": "text", "paths": str(corpus), "separator": " lazy "},
        optimizer={"type": "sgd", "lr": 1e-12},
        train={"steps": 1, "batch_size": batch_size, "document_mask": document_mask, "validation": 0.03} | ONE,
        evaluate={"every": 1, "batches": 10_000},
        hardware={"precision": "float32"},
    )
    loss = run(page, out, report=report).validation_loss
    assert loss is not None
    return loss


@pytest.mark.parametrize("document_mask", [False, True])
def test_the_loss_is_the_mean_over_every_target_whatever_the_batch_size(
    spec: Callable[..., RunSpec], corpus: Path, tmp_path: Path, recorder: Recorder, document_mask: bool
) -> None:
    found = [_measured(spec, corpus, tmp_path / str(b), b, recorder, document_mask) for b in (1, 3, 7, 64)]
    parts = corpus.read_bytes().split(b" lazy ")
    tokens = torch.tensor([t for part in parts for t in (*part, 256)])
    number = torch.tensor([i for i, part in enumerate(parts) for _ in range(len(part) + 1)])
    ((begin, end),) = spans(len(tokens), 0.03, "validation")
    assert (end - begin - 1) % SEQ_LEN  # the last window is shorter
    model = load(tmp_path / "1" / "model")
    losses = []
    for first in range(begin, end - 1, SEQ_LEN):
        row, document = (t[first : min(first + SEQ_LEN + 1, end)] for t in (tokens, number))
        logits = model(row[None, :-1], segments=document[None, :-1] - document[0] if document_mask else None).logits[0]
        losses += [
            loss
            for loss, here, ahead in zip(
                F.cross_entropy(logits, row[1:], reduction="none").tolist(), document, document[1:], strict=False
            )
            if not document_mask or here == ahead
        ]
    assert found == pytest.approx([float(np.mean(losses))] * 4, rel=1e-6)
