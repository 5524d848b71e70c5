"""Point-in-time behaviour features and labels: the only code that touches events."""
