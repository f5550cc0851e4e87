"""The cost of a model, counted on the built module: parameters, FLOPs, memory, decode state."""
