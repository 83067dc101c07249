"""The page of a run: its head and, below it, a section a subject."""

from __future__ import annotations

from collections.abc import Sequence

from .facts import facts
from .log import Run
from .markup import element, escaped
from .pictures import bytes_picture, gate_picture, loss_picture, rate_picture
from .style import SCRIPT, STYLE
from .tables import allocation_section, gate_table, skipped_section, transition_table

__all__ = ["page"]

# Nothing is fetched: browsers would refuse to.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, runs: Sequence[Run], index: int) -> str:
    """The page of one run of a log, by its index; the same for the same log, whenever it is made.

    Args:
        title: what the page calls the log.
    """
    run = runs[index]
    body = [
        element("h1", escaped(title)),
        *([_which(len(runs), index)] if len(runs) > 1 else []),
        facts(run),
        _section("Loss", loss_picture(run)),
        _section("Learning rate", rate_picture(run)),
        _section("Gates", gate_picture(run) + gate_table(run)),
        _section("Bytes of state by role", bytes_picture(run)),
        _section("Changes of rung", transition_table(run)),
        _section("The last allocation", allocation_section(run)),
        _section("Skipped steps and non-finite gradients", skipped_section(run)),
        *([_passed_over(run.passed_over)] if run.passed_over else []),
        element("div", "", id="hover"),
        element("script", SCRIPT),
    ]
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)} - COSMIC</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            *body,
            "</body>\n</html>\n",
        )
    )


def _section(title: str, inner: str) -> str:
    return element("section", element("h2", escaped(title)) + "\n" + inner)


def _which(count: int, index: int) -> str:
    return element("p", f"Run {index + 1} of {count} in this log.", class_="note")


def _passed_over(count: int) -> str:
    lines = "1 line of the log is" if count == 1 else f"{count:,} lines of the log are"
    return element("p", f"{lines} not an event, and passed over.", class_="note")
