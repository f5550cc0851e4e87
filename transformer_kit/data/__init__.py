"""From documents to batches: token caches, the order of training, tokenizers' files, text as it is generated."""
