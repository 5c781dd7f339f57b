"""Benchmarks of the programs as a user runs them: ``python -m bench -h``."""
