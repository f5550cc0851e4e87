"""Activations to logits."""
