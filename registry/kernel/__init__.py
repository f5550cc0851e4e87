"""How attention is computed; a matter of the run."""
