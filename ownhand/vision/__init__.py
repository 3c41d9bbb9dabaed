"""What the vision tower is shown, and the cache of what it sees."""
