"""Building, running, saving and loading models."""
