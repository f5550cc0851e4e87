"""Element-wise nonlinearities."""
