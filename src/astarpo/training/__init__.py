"""Stage 2's machine: what a run starts from, one update, checkpoints, health."""
