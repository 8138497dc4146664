"""What a run would do, need and cost, worked out before any of it runs."""
