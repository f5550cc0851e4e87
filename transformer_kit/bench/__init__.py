"""Measures a model against what else one would use, in one run: `kit bench`."""
