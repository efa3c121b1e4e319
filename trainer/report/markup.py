"""HTML and SVG put together so that no text can become markup: what is not `Markup` is escaped."""

from __future__ import annotations

import html

VOID = frozenset({"img", "meta", "wbr"})
"""Elements of HTML that have no end."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """Write an element; children that are not `Markup` are escaped, and so is every attribute.

    Args:
        name: As `td`.
        children: In order; none in a void element.
        attributes: An underscore at the end is dropped (`class_`), one inside becomes a hyphen;
            None leaves the attribute out.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    start = f"<{name}{said}>"
    return Markup(start if name in VOID else f"{start}{join(*children)}</{name}>")


def join(*children: str) -> Markup:
    """Put elements and texts behind each other; texts are escaped."""
    return Markup(
        "".join(child if isinstance(child, Markup) else _escape(child) for child in children)
    )


def signed(value: float, form: str) -> str:
    """Format a number with the minus sign that is as wide as a plus."""
    return format(value, form).replace("-", "−")


def _escape(text: str) -> str:
    """Escape what HTML would read, and show what cannot be seen as Python would write it.

    File names may hold bytes that are no UTF-8, line ends, or signs that turn the direction of
    writing round.
    """
    seen = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    return html.escape(seen)
