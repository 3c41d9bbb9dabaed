"""From data/raw to data/processed: formats of ground truth, pictures, splits without leaks."""
