"""What the command line does beside the stages: one verb and one function a file."""
