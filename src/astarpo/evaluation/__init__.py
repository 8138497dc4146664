"""Scores of a policy: sampled answers, benchmarks, multiple choice."""
