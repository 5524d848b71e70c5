"""What bands are called, lowest first; apart from what makes them, so that a config is read without loading models."""

NAMES = ("very_low", "low", "medium", "high", "very_high")
