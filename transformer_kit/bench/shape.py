"""The sizes of a model for its peers, from the Hugging Face configuration of its export."""

from dataclasses import dataclass
from typing import Any

from transformer_kit.convert.errors import ConvertError
from transformer_kit.model.build import assemble
from transformer_kit.spec.schema import Spec


class NoPeer(ValueError):
    """A peer does not support this shape, or is not installed; the message says why."""


@dataclass(frozen=True)
class Shape:
    """A decoder of the GPT-2 or the Llama family. Letters as in `registry.contracts`."""

    family: str
    """`gpt2`: LayerNorm, learned positions, GELU, biases; `llama`: RMSNorm, rotary positions, SwiGLU, no biases."""
    vocab: int
    seq: int
    """Longest sequence in tokens."""
    layers: int
    d_model: int
    d_ff: int
    heads: int
    kv_heads: int
    eps: float
    tied: bool
    theta: float = 10_000.0


def config_of(spec: Spec) -> dict[str, Any]:
    """The Hugging Face configuration, with its `model_type`. Raises NoPeer when no class computes this model."""
    from transformer_kit.convert.export import match

    try:
        found = match(assemble(spec))
    except ConvertError as error:
        raise NoPeer(f"has no class for this model ({str(error).splitlines()[1].strip()})") from None
    return {**found.config, "model_type": found.declaration.names[0], "architectures": found.declaration.classes}


def shape_of(config: dict[str, Any]) -> Shape:
    """The shape of a configuration of GPT-2 or Llama. Raises NoPeer for other families."""
    family = config["model_type"]
    if family == "gpt2":
        return _gpt2(config)
    if family == "llama":
        return _llama(config)
    raise NoPeer(f"is written for the shapes of gpt2 and llama alone, and this is {family}")


def _gpt2(config: dict[str, Any]) -> Shape:
    return Shape(
        family="gpt2",
        vocab=config["vocab_size"],
        seq=config["n_positions"],
        layers=config["n_layer"],
        d_model=config["n_embd"],
        d_ff=config.get("n_inner") or 4 * config["n_embd"],
        heads=config["n_head"],
        kv_heads=config["n_head"],
        eps=config.get("layer_norm_epsilon", 1e-5),
        tied=config.get("tie_word_embeddings", True),
    )


def _llama(config: dict[str, Any]) -> Shape:
    if config.get("head_dim") not in (None, config["hidden_size"] // config["num_attention_heads"]):
        raise NoPeer("has no heads whose width is not d_model / n_heads")
    rope = config.get("rope_parameters") or config
    return Shape(
        family="llama",
        vocab=config["vocab_size"],
        seq=config["max_position_embeddings"],
        layers=config["num_hidden_layers"],
        d_model=config["hidden_size"],
        d_ff=config["intermediate_size"],
        heads=config["num_attention_heads"],
        kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        eps=config.get("rms_norm_eps", 1e-6),
        tied=config.get("tie_word_embeddings", False),
        theta=rope.get("rope_theta", 10_000.0),
    )
