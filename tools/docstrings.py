"""How the API reference reads docstrings: a section `Example:` is one of examples that run."""

import griffe


class ExampleSections(griffe.Extension):
    """Renames `Example:`, which griffe would show as a quotation, to the `Examples:` it knows."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Called for every object once it is loaded."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
