"""Rescaling of features."""
