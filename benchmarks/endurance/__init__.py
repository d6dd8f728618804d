"""What a library survives: one command for each promise, ``python -m benchmarks.endurance``."""
