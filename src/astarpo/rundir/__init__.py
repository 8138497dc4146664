"""What a run leaves behind: its writer, its reader, and experiment trackers."""
