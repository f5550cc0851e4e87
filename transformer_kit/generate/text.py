"""Text level of generation."""
