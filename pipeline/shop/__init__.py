"""The behavioural model of the simulated shop: pure functions on NumPy arrays, one chunk of users at a time."""
