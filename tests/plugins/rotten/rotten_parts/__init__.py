"""Parts that fail."""
