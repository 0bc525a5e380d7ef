"""Training data: records, readers of input formats, scrubbed shards and packing."""
