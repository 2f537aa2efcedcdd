"""HTML pages of one file with inline style and script, whose policy allows nothing else."""

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
    """Return a page with this body, which is markup: text in it must be escaped."""
    style, code = read_part("page.css"), read_part("page.js") if script else ""
    return Template(read_part("page.html")).substitute(
        title=html.escape(title), policy=policy(style, code), style=style, script=code, body=body
    )


def policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy that allows this style and script, and embedded images."""
    sources = [f"style-src '{digest(style)}'", f"script-src '{digest(script)}'", "img-src data:"]
    return "; ".join(["default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"])


def digest(text: str) -> str:
    """Return the hash of an inline style or script for the policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def read_part(name: str) -> str:
    """Return the text of a file in this folder."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def embedded(value: Any) -> str:
    """Return JSON that is safe inside a script element: it cannot end the element or begin a comment."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def escaped(value: object) -> str:
    """Return a value as text for markup, also in quoted attributes."""
    return html.escape(str(value))


def table(rows: Iterable[Iterable[object]], head: Iterable[str] = ()) -> str:
    """Return a table whose first column is headers."""
    top = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in head)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{escaped(first)}</th>{cells}</tr>')
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if top else ''}<tbody>{''.join(lines)}</tbody></table>"
