"""Who writes the metrics down."""
