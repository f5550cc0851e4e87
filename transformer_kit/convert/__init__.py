"""Models in from Hugging Face folders and out to them, by declarations: one YAML file for each family."""
