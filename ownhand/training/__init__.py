"""How an adapter is trained: batches, schedule, trainer, choice, outcome."""
