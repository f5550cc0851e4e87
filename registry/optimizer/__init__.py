"""What takes the steps."""
