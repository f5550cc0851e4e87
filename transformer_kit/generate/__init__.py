"""Generation: prompts in, new tokens out; one forward pass for the prompts, then one for each new token."""

from transformer_kit.generate.decode import generate, stream
from transformer_kit.generate.text import complete

__all__ = ["complete", "generate", "stream"]
