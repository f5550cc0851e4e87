"""Builds a model from a spec, runs it, saves it and loads it."""
