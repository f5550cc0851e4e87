"""Which experts see a token."""
