"""The report of a run folder as one HTML file, and the page that lists all runs of a folder.

Their policy allows nothing but the inline style and script.
"""

import base64
import hashlib
import os
import shlex
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dnnlib.names import printable
from dnnlib.rundir import run_dirs
from dnnlib.text import format_duration
from training.run_report.curves import Chart, metric_charts, statistics_charts
from training.run_report.images import encoded, fake_files, read_grids
from training.run_report.run_folder import RunFolder, mean, number, read_run

_FOLDER = Path(__file__).parent
_LOG_LINES = 60
_STATUSES = ("running", "done", "stopped", "failed")
_THUMBNAIL = (70, 480)  # quality, px
_OWN_SETTINGS = ("preset", "data.path")  # differ from those of the preset in every run


def make_page(run_dir: Path, is_served: bool = False) -> str:
    """Return the report of a run folder; `is_served` = with a link to the index of runs."""
    run = read_run(run_dir)
    metrics = metric_charts(run.metrics)
    charts = [chart.plain() for chart in metrics + statistics_charts(run.rows)]
    word, reason = status(run)
    preset = run.preset_options()
    return render(
        "run.html",
        has_script=True,
        name=printable(run_dir.resolve().name),
        is_served=is_served,
        status=word,
        reason=reason,
        share=min(run.cur_kimg / run.total_kimg, 1) if run.total_kimg else None,
        figures=key_figures(run, metrics),
        grids=read_grids(run_dir),
        data={"charts": charts, "written": time.time()},
        settings=setting_lines(run.options),
        preset=run.options.get("preset", ""),
        changed=None if preset is None else differences(run.options, preset),
        facts=facts_rows(run.facts),
        command=run.facts.get("command"),
        explore=explore_commands(run_dir),
        warnings=[line for line in run.log if line.startswith("Warning:")][-_LOG_LINES:],
        log=run.log[-_LOG_LINES:],
    )


def explore_commands(run_dir: Path) -> list[str]:
    """Return the command that shows each snapshot in the browser, newest first."""
    snapshots = sorted(run_dir.resolve().glob("network-snapshot-[0-9]*.pkl"), reverse=True)
    return [shlex.join(["python", "generate.py", "explore", f"--network={path}"]) for path in snapshots]


def status(run: RunFolder) -> tuple[str, str]:
    """Return the status of a run in a word ("" = unknown), and the reason or the time of its last row."""
    state = str(run.facts.get("status", ""))
    reason = str(run.facts.get("reason") or "")
    if state == "running" and run.rows and (when := moment(run.rows[-1].get("timestamp"))):
        reason = f"last update {when}"
    return state.capitalize() if state in _STATUSES else "", reason


def moment(seconds: Any) -> str:
    """Return a time, seconds since 1970, as text; "" if it is none."""
    if number(seconds) is None:
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):  # beyond all years
        return ""


def key_figures(run: RunFolder, metrics: list[Chart]) -> list[tuple[str, str, str]]:
    """Return the figures at the top: name, value, remark."""
    total = run.total_kimg
    figures = [("Trained", f"{run.cur_kimg:,.6g} kimg", f"of {total:,.6g}" if total else "")]
    if run.rows:
        figures.append(("Time", format_duration(run.training_sec), "all restarts together"))
    speeds = [value for row in run.rows if row["cur_nimg"] and (value := mean(row, "Timing/sec_per_kimg")) is not None]
    if speeds:
        left = max((total or 0) - run.cur_kimg, 0) * speeds[-1]
        figures.append(("Speed", f"{speeds[-1]:.4g} s/kimg", f"about {format_duration(left)} left" if left else ""))
    return figures + [
        (chart.title, best_value(chart), f"best, at {chart.x[chart.best or 0]:g} kimg") for chart in metrics
    ]


def best_value(chart: Chart) -> str:
    return f"{chart.curves['value'][chart.best or 0]:.4g}"


def facts_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return facts of images, networks, machine and versions: name, value."""
    groups = {name: value for name in ("data", "parameters", "versions") if isinstance(value := facts.get(name), dict)}
    data, parameters = groups.get("data", {}), groups.get("parameters", {})
    rows: list[tuple[str, str]] = []
    if "pictures" in data:
        flipped = data["pictures"] != data.get("files", data["pictures"])
        rows.append(("Images", f"{counted(data['pictures'])}{', flipped ones included' if flipped else ''}"))
        channels = {"1": ", grey", "3": ", RGB"}.get(str(data.get("channels")), "")
        rows.append(("Size", f"{data.get('width')} x {data.get('height')} px{channels}"))
        names = ", ".join(map(str, list(data.get("class_names") or [])[:20]))
        rows.append(("Classes", f"{data.get('classes') or 'none'}{f': {names}' if names else ''}"))
    networks = {"G": "Generator", "D": "Discriminator"}
    rows += [(networks.get(str(name), str(name)), f"{counted(count)} parameters") for name, count in parameters.items()]
    rows += [(key.capitalize(), str(facts[key])) for key in ("device", "processes") if key in facts]
    return rows + [(str(name), str(version)) for name, version in groups.get("versions", {}).items()]


def counted(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def setting_lines(options: dict[str, Any]) -> dict[str, str]:
    """Return the value of every setting as text, by its name for --set."""
    found: dict[str, str] = {}
    for group, values in options.items():
        if isinstance(values, dict):
            found |= {f"{group}.{name}": setting_text(value) for name, value in values.items()}
        else:
            found[group] = setting_text(values)
    return found


def differences(options: dict[str, Any], preset_options: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, value of the preset) of each setting that differs."""
    ours, theirs = setting_lines(options), setting_lines(preset_options)
    return [
        (name, value, theirs.get(name, "none"))
        for name, value in ours.items()
        if name not in _OWN_SETTINGS and theirs.get(name) != value
    ]


def setting_text(value: Any) -> str:
    """Return a setting as --set takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(setting_text(item) for item in value) or "none"
    return "none" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def make_index(outdir: Path) -> str:
    """Return the page of all runs in a folder, the newest first."""
    runs = [card(run_dir) for run_dir in reversed(run_dirs(outdir))]
    return render("index.html", has_script=False, name="Runs", outdir=printable(str(outdir.resolve())), runs=runs)


def card(run_dir: Path) -> dict[str, Any]:
    """Return the name of a run, the path of its page, its newest image and facts; for a damaged one, that it is so."""
    try:
        content = card_content(run_dir)
    except Exception:  # of one run: the others are to be seen
        content = {"image": None, "facts": ["cannot be read"]}
    return {"name": printable(run_dir.name), "link": quote(os.fsencode(run_dir.name))} | content


def card_content(run_dir: Path) -> dict[str, Any]:
    run = read_run(run_dir)
    newest = next((found for _, path in reversed(fake_files(run_dir)) if (found := encoded(path, *_THUMBNAIL))), None)
    total = f" of {run.total_kimg:,.6g}" if run.total_kimg else ""
    facts = [f"{run.cur_kimg:,.6g}{total} kimg", status(run)[0].lower()]
    facts += [f"{chart.title} {best_value(chart)}" for chart in metric_charts(run.metrics)]
    return {"image": newest, "facts": [fact for fact in facts if fact]}


def render(template: str, has_script: bool, **values: Any) -> str:
    """Return the page that a template in this folder makes of values; text among them is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, script = read_part("page.css"), read_part("page.js") if has_script else ""
    sources = [f"style-src '{digest(style)}'", f"script-src '{digest(script)}'", "img-src data:"]
    policy = "; ".join(["default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"])
    return environment.get_template(template).render(
        values, policy=policy, style=Markup(style), script=Markup(script), now=time.strftime("%F %H:%M")
    )


def digest(text: str) -> str:
    """Return the hash of an inline style or script for the Content-Security-Policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def read_part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
