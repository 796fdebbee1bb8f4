"""Comparisons with the tools one would use instead; `python -m benchmarks.NAME` runs one."""
