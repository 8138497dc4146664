"""Decoding in which a prompt is read, and its keys and values held, once for all completions."""
