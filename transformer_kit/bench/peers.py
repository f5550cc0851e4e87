"""Who is measured: the kit, two modules written by hand, and well-known packages where they are installed.

A candidate is a module and three ways to use it, each the best that its own documentation offers:

    loss(tokens, targets)    mean cross-entropy, for training
    prefill(tokens)          logits of what follows a prompt
    decode(tokens, count)    `count` ids after a prompt, the likeliest each time, one step at a time
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer_kit.bench.plain import Plain
from transformer_kit.bench.shape import NoPeer, Shape, config_of, shape_of
from transformer_kit.bench.tutorial import Tutorial
from transformer_kit.model.build import build
from transformer_kit.model.model import Model
from transformer_kit.spec.schema import Spec

KIT = "transformer_kit"


@dataclass(frozen=True)
class Candidate:
    """A model and the ways to use it."""

    name: str
    module: nn.Module
    vocab: int
    loss: Callable[[Tensor, Tensor], Tensor]
    prefill: Callable[[Tensor], Any]
    decode: Callable[[Tensor, int], Iterator[Any]]


def kit(spec: Spec, config: dict[str, Any]) -> Candidate:
    """The kit's own model."""
    model = build(spec)

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        total, count = model.loss(tokens, targets)
        return total / count

    return Candidate(
        KIT, model, spec.model.vocab_size, loss, lambda tokens: model(tokens, last=True).logits, _stream(model)
    )


def _stream(model: Model) -> Callable[[Tensor, int], Iterator[Any]]:
    return lambda tokens, count: model.stream(tokens.tolist(), max_new_tokens=count)


def plain(spec: Spec, config: dict[str, Any]) -> Candidate:
    """The hand-written module."""
    model = Plain(shape_of(config))
    return Candidate(
        "plain", model, spec.model.vocab_size, model.loss, lambda tokens: model(tokens, last=True), model.decode
    )


def tutorial(spec: Spec, config: dict[str, Any]) -> Candidate:
    """The tutorial's module."""
    model = Tutorial(shape_of(config))
    return Candidate("tutorial", model, spec.model.vocab_size, model.loss, model, model.decode)


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

    def decode(tokens: Tensor, count: int) -> Iterator[Tensor]:
        cache = hf.DynamicCache(config=model.config)
        for _ in range(count):
            logits = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
            tokens = logits[:, -1:].argmax(dim=-1)
            yield tokens

    return Candidate(
        "transformers",
        model,
        spec.model.vocab_size,
        loss,
        lambda tokens: model(tokens, use_cache=False, logits_to_keep=1).logits,
        decode,
    )


def litgpt(spec: Spec, config: dict[str, Any]) -> Candidate:
    """LitGPT, which turns positions where GPT-2 learns them."""
    lit, shape = _package("litgpt.model", "litgpt"), shape_of(config)
    llama = shape.family == "llama"
    model = lit.GPT(
        lit.Config(
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
    )
    if shape.tied:
        model.lm_head.weight = model.transformer.wte.weight

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    def decode(tokens: Tensor, count: int) -> Iterator[Tensor]:
        start, length = 0, tokens.shape[1] + count
        model.max_seq_length = length
        model.set_kv_cache(batch_size=len(tokens), max_seq_length=length)
        try:
            for _ in range(count):
                places = torch.arange(start, start + tokens.shape[1])
                logits = model(tokens, places, input_pos_maxp1=int(places[-1]) + 1)
                start += tokens.shape[1]
                tokens = logits[:, -1:].argmax(dim=-1)
                yield tokens
        finally:
            model.clear_kv_cache()
            model.max_seq_length = shape.seq

    return Candidate("litgpt", model, spec.model.vocab_size, loss, model, decode)


def x_transformers(spec: Spec, config: dict[str, Any]) -> Candidate:
    """x-transformers."""
    xt, shape = _package("x_transformers", "x-transformers"), shape_of(config)
    llama = shape.family == "llama"
    options = {"rotary_pos_emb": True, "use_rmsnorm": True, "ff_glu": True, "ff_swish": True, "ff_no_bias": True}
    model = xt.TransformerWrapper(
        num_tokens=shape.vocab,
        max_seq_len=shape.seq,
        use_abs_pos_emb=not llama,
        tie_embedding=shape.tied,
        attn_layers=xt.Decoder(
            dim=shape.d_model,
            depth=shape.layers,
            heads=shape.heads,
            attn_dim_head=shape.d_model // shape.heads,
            attn_kv_heads=shape.kv_heads if shape.kv_heads != shape.heads else None,
            attn_flash=True,
            ff_mult=shape.d_ff / shape.d_model,
            **(options if llama else {}),
        ),
    )

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    def decode(tokens: Tensor, count: int) -> Iterator[Tensor]:
        cache, row = None, tokens
        for _ in range(count):
            logits, cache = model(row, return_intermediates=True, cache=cache)
            chosen = logits[:, -1:].argmax(dim=-1)
            row = torch.cat([row, chosen], dim=1)
            yield chosen

    return Candidate("x-transformers", model, spec.model.vocab_size, loss, model, decode)


PEERS: dict[str, Callable[[Spec, dict[str, Any]], Candidate]] = {
    "plain": plain,
    "tutorial": tutorial,
    "transformers": transformers,
    "litgpt": litgpt,
    "x-transformers": x_transformers,
}


def candidate(name: str, spec: Spec) -> Candidate:
    """A candidate by name, without dropout. Raises NoPeer when there is none of this model."""
    spec = undropped(spec)
    return kit(spec, {}) if name == KIT else PEERS[name](spec, config_of(spec))


def undropped(spec: Spec) -> Spec:
    """The model of a page without dropout, which peers do not agree on."""
    page = Spec(kit=spec.kit, plugins=spec.plugins, model=spec.model.model_copy(update={"dropout": 0.0}))
    page._source = spec._source
    return page


def parameters(module: nn.Module) -> int:
    """Distinct parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def _package(module: str, name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise NoPeer(f"is not installed ({error}); pip install {name}") from None


__all__ = ["KIT", "PEERS", "Candidate", "NoPeer", "Shape", "candidate", "parameters", "undropped"]
