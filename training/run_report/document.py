"""Makes a page that is one file and may load nothing: style and script within, and a policy that allows only those."""

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

_FOLDER = Path(__file__).parent


def document(title: str, body: str, script: bool = True) -> str:
    """Return a whole page with this content, which is markup: text in it must have been escaped."""
    style, code = read_part("page.css"), read_part("page.js") if script else ""
    return Template(read_part("page.html")).substitute(
        title=html.escape(title), policy=policy(style, code), style=style, script=code, body=body
    )


def policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy by which this style and script, and images within the page, are all there is."""
    sources = [f"style-src '{digest(style)}'", f"script-src '{digest(script)}'", "img-src data:"]
    return "; ".join(["default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"])


def digest(text: str) -> str:
    """Return the hash by which a policy names an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def read_part(name: str) -> str:
    """Return one of the files that a page is made of."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def embedded(value: Any) -> str:
    """Return JSON that may stand in a script element: nothing in it can end that element or begin a comment."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def escaped(value: object) -> str:
    """Return a value as text for markup, also within quotes."""
    return html.escape(str(value))


def table(rows: Iterable[Iterable[object]], head: Iterable[str] = ()) -> str:
    """Return a table; the first cell of each row names it."""
    top = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{escaped(first)}</th>{cells}</tr>')
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if top else ''}<tbody>{''.join(lines)}</tbody></table>"
