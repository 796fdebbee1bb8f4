"""Telling people of a run: what is said, on which occasion, over which way."""
