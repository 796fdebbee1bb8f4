"""What is particular to Slurm: its words, its queue, its options, the hosts it gives."""
