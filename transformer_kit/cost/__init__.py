"""What a model costs, counted on the built module: parameters, FLOPs, memory, decode state."""
