"""Well-known packages as candidates, where they are installed."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from transformer_kit.bench.candidate import Candidate
from transformer_kit.bench.shape import NoPeer, Shape, shape_of
from transformer_kit.spec.schema import Spec


def transformers(spec: Spec, config: dict[str, Any]) -> Candidate:
    """Hugging Face transformers: the class that `kit export` would choose, with torch's fused attention."""
    hf = _package("transformers", "transformers")
    hf.logging.set_verbosity_error()
    dropouts = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attention_dropout": 0.0}
    settings = {k: v for k, v in config.items() if k not in ("model_type", "architectures")} | dropouts
    known = hf.AutoConfig.for_model(config["model_type"], **settings)
    model = hf.AutoModelForCausalLM.from_config(known, attn_implementation="sdpa")

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        mean: Tensor = model(tokens, labels=targets, shift_labels=targets, use_cache=False).loss
        return mean

    def prefill(tokens: Tensor) -> Any:
        return model(tokens, use_cache=False, logits_to_keep=1).logits

    def decode(tokens: Tensor, count: int) -> Iterator[Tensor]:
        cache = hf.DynamicCache(config=model.config)
        for _ in range(count):
            logits = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            tokens = logits[:, -1:].argmax(dim=-1)
            yield tokens

    static = _Static(hf, model)
    return Candidate("transformers", model, spec.model.vocab_size, loss, prefill, decode, static)


class _Static:
    """Decoding with a static cache and a compiled forward pass, as transformers' documentation advises."""

    def __init__(self, hf: Any, model: Any) -> None:
        self.hf, self.model = hf, model
        self.cache: Any = None
        self.step = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)

    def __call__(self, tokens: Tensor, count: int) -> Iterator[Tensor]:
        if self.cache is None:
            self.cache = self.hf.StaticCache(config=self.model.config, max_cache_len=tokens.shape[1] + count)
        self.cache.reset()
        forward = self.model
        for _ in range(count):
            torch.compiler.cudagraph_mark_step_begin()
            logits = forward(tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits
            tokens = logits[:, -1:].argmax(dim=-1)
            yield tokens
            forward = self.step


def litgpt(spec: Spec, config: dict[str, Any]) -> Candidate:
    """LitGPT, which uses rotary positions where GPT-2 uses learned ones."""
    lit, shape = _package("litgpt.model", "litgpt"), shape_of(config)
    model = lit.GPT(_litgpt_config(lit, shape))
    if shape.tied:
        model.lm_head.weight = model.transformer.wte.weight
    decode = partial(_litgpt_decode, model, shape.seq)
    return Candidate("litgpt", model, shape.vocab, partial(_loss, model), model, decode)


def _litgpt_config(lit: Any, shape: Shape) -> Any:
    llama = shape.family == "llama"
    return lit.Config(
        block_size=shape.seq,
        vocab_size=shape.vocab,
        padded_vocab_size=shape.vocab,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_query_groups=shape.kv_heads,
        n_embd=shape.d_model,
        intermediate_size=shape.d_ff,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=not llama,
        norm_class_name="RMSNorm" if llama else "LayerNorm",
        mlp_class_name="LLaMAMLP" if llama else "GptNeoxMLP",
        gelu_approximate="tanh",
        norm_eps=shape.eps,
        rope_base=int(shape.theta),
    )


def _litgpt_decode(model: Any, longest: int, tokens: Tensor, count: int) -> Iterator[Tensor]:
    start, length = 0, tokens.shape[1] + count
    model.max_seq_length = length
    model.set_kv_cache(batch_size=len(tokens), max_seq_length=length, device=tokens.device)
    try:
        for _ in range(count):
            end = start + tokens.shape[1]
            logits = model(tokens, torch.arange(start, end, device=tokens.device), input_pos_maxp1=end)
            start = end
            tokens = logits[:, -1:].argmax(dim=-1)
            yield tokens
    finally:
        model.clear_kv_cache()
        model.max_seq_length = longest


def x_transformers(spec: Spec, config: dict[str, Any]) -> Candidate:
    """x-transformers."""
    xt, shape = _package("x_transformers", "x-transformers"), shape_of(config)
    llama = shape.family == "llama"
    options = {"rotary_pos_emb": True, "use_rmsnorm": True, "ff_glu": True, "ff_swish": True, "ff_no_bias": True}
    layers = xt.Decoder(
        dim=shape.d_model,
        depth=shape.layers,
        heads=shape.heads,
        attn_dim_head=shape.d_model // shape.heads,
        attn_kv_heads=shape.kv_heads if shape.kv_heads != shape.heads else None,
        attn_flash=True,
        ff_mult=shape.d_ff / shape.d_model,
        **(options if llama else {}),
    )
    model = xt.TransformerWrapper(
        num_tokens=shape.vocab,
        max_seq_len=shape.seq,
        use_abs_pos_emb=not llama,
        tie_embedding=shape.tied,
        attn_layers=layers,
    )
    decode = partial(_x_decode, model)
    return Candidate("x-transformers", model, shape.vocab, partial(_loss, model), model, decode)


def _x_decode(model: Any, row: Tensor, count: int) -> Iterator[Tensor]:
    cache = None
    for _ in range(count):
        logits, cache = model(row, return_intermediates=True, cache=cache)
        chosen = logits[:, -1:].argmax(dim=-1)
        row = torch.cat([row, chosen], dim=1)
        yield chosen


def _loss(model: Any, tokens: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())


def _package(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise NoPeer(f"is not installed ({error}); pip install {name}") from None
