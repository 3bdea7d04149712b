"""Our docstrings end in a bare doctest; Markdown would read its ``>>>`` as a quotation. Make it an example."""

from __future__ import annotations

import griffe


class Doctests(griffe.Extension):
    """Put each paragraph that starts with ``>>>`` under a heading that the Google style knows."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = "\n\n".join(map(_example, obj.docstring.value.split("\n\n")))


def _example(paragraph: str) -> str:
    if not paragraph.startswith(">>>"):
        return paragraph
    return "\n".join(["Examples:", *("    " + line for line in paragraph.splitlines())])
