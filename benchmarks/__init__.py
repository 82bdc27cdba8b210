"""Measurements: each file prints ratios from one run against a named peer and writes JSON to `benchmarks/results/`."""
