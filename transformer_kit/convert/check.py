"""What `transformers` makes of an exported folder."""

from importlib.util import find_spec
from pathlib import Path

import torch

from transformer_kit.convert.declaration import Declaration
from transformer_kit.model.model import Model

TOKENS = 16


def against_transformers(model: Model, folder: Path, declaration: Declaration) -> float | None:
    """Largest difference between our logits and those of `transformers` loading `folder`; None when not installed.

    The class is the declaration's: some are not among those that AutoModelForCausalLM finds.
    """
    if find_spec("transformers") is None:
        return None
    import transformers

    theirs = (
        getattr(transformers, declaration.classes[0])
        .from_pretrained(
            str(folder), attn_implementation="eager", dtype=model.embedding.weight.dtype, local_files_only=True
        )
        .eval()
    )
    spec = model.spec.model
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, spec.vocab_size, (2, min(TOKENS, spec.max_seq_len)), generator=generator)
    training = model.training
    model.eval()
    with torch.inference_mode():
        difference = (model(tokens).logits - theirs(tokens, use_cache=False).logits).abs().max()
    model.train(training)
    return float(difference)
