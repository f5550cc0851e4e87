"""One model through the real compiler, forward and backward; the other parts are only traced, which is quicker."""

import shutil

import pytest
import torch

from transformer_kit.testing import agree
from transformer_kit.testing.carriers import plain_model, tokens


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_model_equals_the_plain_one() -> None:
    model = plain_model().float().train()
    ids = tokens(model)
    grads, logits = [], []
    for run in (model, torch.compile(model, fullgraph=True)):
        model.zero_grad()
        output = run(ids, ids)
        output.loss.backward()
        logits.append(output.logits)
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    agree(logits[1], logits[0], "compiled logits")
    for compiled, plain in zip(grads[1], grads[0], strict=True):
        agree(compiled, plain, "gradient of the compiled model")
