"""How the API reference reads the package."""

import griffe


class Reader(griffe.Extension):
    """Shows examples as code, and settings with their types alone.

    A section `Example:` becomes the `Examples:` that griffe knows; else it would be a quotation. Of
    `Annotated[float, declare(...)]` the type is kept: what is declared is on the page of settings.
    """

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Called for every object once it is loaded."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
        if isinstance(obj, griffe.Attribute) and isinstance(obj.annotation, griffe.ExprSubscript):
            name, inside = str(obj.annotation.left), obj.annotation.slice
            if name == "Annotated" and isinstance(inside, griffe.ExprTuple):
                obj.annotation = inside.elements[0]
