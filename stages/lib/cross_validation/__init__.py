"""Cross-validation: who validates when, and an adapter for each fold."""
