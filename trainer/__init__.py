"""Learns: curated feedback in, verified checkpoints and their evidence out. Torch is imported inside a run only."""
