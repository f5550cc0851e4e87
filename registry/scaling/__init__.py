"""How rotary positions stretch to longer contexts."""
