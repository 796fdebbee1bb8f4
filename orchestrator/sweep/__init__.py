"""Sweeps: many runs from one job file, in one Slurm array or one after another."""
