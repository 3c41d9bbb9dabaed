"""The base model and its adapter: loading, sequences, decoding, memory, the official layout."""
