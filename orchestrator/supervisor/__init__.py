"""The supervisor: one per run, drives it from its directory alone, from start to verdict."""
