"""How a mixer, an ffn and norms make a layer."""
