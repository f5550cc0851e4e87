"""Specs to run commands on, and what a command did."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PAGE = """\
kit: 1
model:
  vocab_size: 257
  d_model: 16
  max_seq_len: 32
  position: rope
  layers:
    count: 2
    block:
      type: pre_norm
      mixer: {type: attention, n_heads: 2}
      ffn: {type: gated, d_ff: 24}
"""
RUN = (
    PAGE
    + """\
data: {type: text, paths: [corpus.txt]}
optimizer: {type: adamw, lr: 1e-3}
train: {steps: 4, batch_size: 2, seq_len: 16}
evaluate: {every: 2, batches: 1}
checkpoint: {every: 2}
sample: {every: 4, prompt: "the ", max_new_tokens: 4}
hardware: {peak_tflops: 0.1}
"""
)
CORPUS = "the quick brown fox jumps over the lazy dog\n" * 40


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Kit = Callable[..., Outcome]
