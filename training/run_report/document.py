"""HTML pages of one file with inline style and script, whose policy allows nothing else."""

import base64
import hashlib
import time
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent


def render(template: str, has_script: bool, **values: Any) -> str:
    """Return the page that a template in this folder makes of values; text among them is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, script = read_part("page.css"), read_part("page.js") if has_script else ""
    return environment.get_template(template).render(
        values, policy=policy(style, script), style=Markup(style), script=Markup(script), now=time.strftime("%F %H:%M")
    )


def policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy that allows this style and script, and embedded images."""
    sources = [f"style-src '{digest(style)}'", f"script-src '{digest(script)}'", "img-src data:"]
    return "; ".join(["default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"])


def digest(text: str) -> str:
    """Return the hash of an inline style or script for the policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def read_part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
