"""Benchmarks, chaos, oracles: thin scripts over the packages."""
