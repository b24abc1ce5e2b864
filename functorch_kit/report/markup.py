"""HTML as text that cannot be broken by what it is made of: everything is escaped on the way in."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from functorch_kit.report.plots import COLOURS
from functorch_kit.report.theme import CSS

# A page can neither run a script nor load a file, whatever stands in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str, numbers: str, css: str = "") -> str:
    """A whole page in the toolkit's style.

    Args:
        title: of the page, as plain text.
        body: HTML.
        numbers: where the numbers on the page are from, as plain text.
        css: what this page adds to the style sheet.

    Returns:
        HTML that holds its style sheet and loads nothing.

    Example:
        >>> document("a <b>", "<p>c</p>", "d.json").count("a &lt;b&gt;")
        1
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · functorch_kit</title>\n<style>{CSS}{css}</style>\n</head>\n"
        f"<body>\n<main>\n{body}<footer>Written by functorch_kit. The numbers behind this page: "
        f"{escape(numbers)}.</footer>\n</main>\n</body>\n</html>\n"
    )


def escape(value: Any) -> str:
    """A value as text in a page, in or outside of an attribute.

    Args:
        value: anything; ``str`` of it is shown.

    Returns:
        The text with ``& < > " '`` escaped.

    Example:
        >>> escape("<script>")
        '&lt;script&gt;'
    """
    return html.escape(str(value), quote=True)


def section(title: str, *bodies: str, panel: bool = True) -> str:
    """A section of the page, or nothing where its bodies are empty.

    Args:
        title: its heading, as plain text.
        bodies: HTML.
        panel: whether the bodies share a framed panel.

    Returns:
        HTML.

    Example:
        >>> section("Curves", "")
        ''
    """
    body = "".join(bodies)
    if not body:
        return ""
    inner = f'<div class="panel">{body}</div>' if panel else body
    return f"<section><h2>{escape(title)}</h2>{inner}</section>\n"


def side_by_side(left: str, right: str, *, kind: str = "even") -> str:
    """Two parts in two columns where the screen is wide enough, else one under the other.

    Args:
        left: HTML.
        right: HTML.
        kind: ``even``, ``matrix`` (the right column takes what the left one leaves), or ``""``
            for one column at any width.

    Returns:
        HTML; a part without its neighbour stands alone.

    Example:
        >>> side_by_side("<p>one</p>", "")
        '<p>one</p>'
    """
    if not (left and right and kind):
        return left + right
    return f'<div class="pair {kind}"><div>{left}</div><div>{right}</div></div>\n'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text, the first column its labels.

    Args:
        header: one text per column.
        rows: the cells.

    Returns:
        HTML that scrolls sideways where the screen is narrow.

    Example:
        >>> "<th scope='row'>peak</th>" in table(["", "train"], [["peak", "4 MB"]])
        True
    """
    head = "".join(f"<th scope='col'>{escape(text)}</th>" for text in header)
    body = "".join(
        f"<tr><th scope='row'>{escape(first)}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table class="data"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, one under the other.

    Args:
        values: what is None or empty is left out.

    Returns:
        HTML.

    Example:
        >>> facts({"python": "3.12.1", "flags": ""})
        '<dl class="facts"><dt>python</dt><dd>3.12.1</dd></dl>'
    """
    shown = {name: value for name, value in values.items() if value not in (None, "", {}, [])}
    inner = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in shown.items())
    return f'<dl class="facts">{inner}</dl>' if inner else ""


def inline_svg(svg: str, label: str, prefix: str) -> str:
    """A drawing as a part of the page: in the page's colours, with ids of its own.

    Args:
        svg: SVG text from ``plots``.
        label: what a screen reader says.
        prefix: letters that no other drawing of the page has.

    Returns:
        HTML.

    Example:
        >>> inline_svg('<svg width="9pt" xmlns="x"><g id="a"><use href="#b"/></g></svg>', "l", "p")
        '<svg class="plot" role="img" aria-label="l"><g><use href="#p-b"/></g></svg>'
    """
    # Only clips, markers and glyphs are referred to; the ids of groups would clash in one page.
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(
        r'\s+id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg
    )
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", svg)
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", svg)
    svg = (
        re.sub(r' (?:width|height|version)="[^"]*"', "", svg[: svg.index(">")])
        + svg[svg.index(">") :]
    )
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    # A style sheet of a drawing would hold for the whole page.
    svg = re.sub(r"\s*<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<", "><", svg)
    return svg.replace("<svg", f'<svg class="plot" role="img" aria-label="{escape(label)}"', 1)
