"""One command per published number: ``python -m benchmarks.NAME`` writes ``results/NAME.json``."""
