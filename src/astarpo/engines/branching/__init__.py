"""The decoder that reads and holds a prompt once for all its completions."""
