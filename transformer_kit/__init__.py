"""The engine: turns a spec into a model, trains it, generates with it. Knows contracts, never a part by name."""
