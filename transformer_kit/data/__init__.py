"""The data pipeline: tokenizer files, token caches, batches, and streaming detokenization."""
