"""The registry: every name that YAML may use is a file here (`ffn: gated` is `registry/ffn/gated.py`)."""
