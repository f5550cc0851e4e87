"""What transforms each token by itself."""
