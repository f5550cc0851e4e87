"""Compares a model with other implementations, in one run: `kit bench`."""
