"""The stages of a recipe, one verb and one function a file."""
