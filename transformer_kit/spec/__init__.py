"""From YAML to a frozen, validated spec."""
