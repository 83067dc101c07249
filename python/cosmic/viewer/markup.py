"""Pieces of HTML and SVG. Whatever comes from a log goes through ``escaped``."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

__all__ = ["MOST_ROWS", "element", "escaped", "table"]

#: Of a table: the page says how many more there were.
MOST_ROWS = 2000
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escaped(text: object) -> str:
    """Text that HTML shows as it is; what HTML may not hold becomes a question mark."""
    return html.escape(_CONTROLS.sub("\ufffd", str(text)), quote=True)


def element(tag: str, inner: str | None = None, /, **attributes: object) -> str:
    """An element around markup, or one without an end (SVG's) where that is None. Attributes are
    escaped; an underscore at a name's end is left out, others are dashes."""
    names = (key.rstrip("_").replace("_", "-") for key in attributes)
    given = "".join(
        f' {name}="{escaped(value)}"'
        for name, value in zip(names, attributes.values(), strict=True)
    )
    return f"<{tag}{given}/>" if inner is None else f"<{tag}{given}>{inner}</{tag}>"


def table(name: str, head: Sequence[str], rows: Iterable[Sequence[object]], numbers: str) -> str:
    """A table by the name that its ``id`` has; ``numbers`` are the columns of numbers, by head."""
    rows = list(rows)
    right = [title in numbers.split(",") for title in head]
    lines = [
        element("tr", "".join(_cell("td", cell, r) for cell, r in zip(row, right, strict=True)))
        for row in rows[:MOST_ROWS]
    ]
    titles = "".join(_cell("th", title, r) for title, r in zip(head, right, strict=True))
    body = element("thead", element("tr", titles)) + element("tbody", "\n".join(lines))
    shown = element("div", element("table", body, id=name), class_="scrolled")
    if len(rows) > MOST_ROWS:
        shown += element("p", f"{len(rows) - MOST_ROWS:,} more rows are not shown.", class_="note")
    return shown


def _cell(tag: str, value: object, right: bool) -> str:
    return element(tag, escaped(value), **({"class_": "number"} if right else {}))
