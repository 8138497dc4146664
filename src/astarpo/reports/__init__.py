"""Runs as one page that works offline, made from their directories alone."""
