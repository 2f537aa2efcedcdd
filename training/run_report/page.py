"""The report of a run folder as one HTML file."""

import time
from pathlib import Path
from typing import Any

from dnnlib.text import format_duration
from training.run_report import settings
from training.run_report.curves import Chart, statistics_charts
from training.run_report.document import document, embedded, escaped, table
from training.run_report.images import Grid, Grids, read_grids
from training.run_report.measurements import metric_charts
from training.run_report.run_folder import RunFolder, mean, read_run

_LOG_LINES = 60
_STATUS = {"running": "Running", "done": "Done", "stopped": "Stopped", "failed": "Failed"}


def make_page(run_dir: Path, is_served: bool = False) -> str:
    """Return the report of a run folder; `is_served` = with a link to the index of runs."""
    run, images = read_run(run_dir), read_grids(run_dir)
    metrics = metric_charts(run.metrics)
    charts = metrics + statistics_charts(run.rows)
    data = {"charts": [chart.plain() for chart in charts], "written": time.time()}
    parts = [
        header_part(run, metrics, is_served),
        "<main>",
        images_part(images),
        charts_part(charts),
        settings_part(run),
        log_part(run),
        "</main>",
        f"<footer>Written by Styleformer at {time.strftime('%Y-%m-%d %H:%M')}, <span id=age></span>. This file needs no "
        f"network and no other file.</footer>",
        f'<script type="application/json" id="data">{embedded(data)}</script>',
    ]
    return document(f"{run_dir.resolve().name} – Styleformer", "\n".join(part for part in parts if part))


def header_part(run: RunFolder, metrics: list[Chart], is_served: bool) -> str:
    """The name of the run, its status and its key figures."""
    back = '<nav class="back"><a href="/">All runs</a></nav>' if is_served else ""
    word, reason = status(run)
    pill = f'<span class="pill {escaped(run.facts.get("status", ""))}">{escaped(word)}</span>' if word else ""
    total, figures = run.total_kimg, ""
    if total:
        share = min(run.cur_kimg / total, 1)
        figures += f'<progress value="{share:.4f}" max="1" aria-label="Trained">{share:.0%}</progress>'
    figures += '<dl class="tiles">' + "".join(tile(*figure) for figure in key_figures(run, metrics)) + "</dl>"
    said = f'<span class="soft">{escaped(reason)}</span>' if reason else ""
    name = escaped(run.path.resolve().name)
    return f'<header>{back}<h1>{name}</h1><p class="state">{pill}{said}</p>{figures}</header>'


def tile(name: str, value: str, remark: str = "") -> str:
    """One key figure."""
    small = f"<small>{escaped(remark)}</small>" if remark else ""
    return f"<div><dt>{breakable(name)}</dt><dd>{escaped(value)}{small}</dd></div>"


def breakable(name: str) -> str:
    """A name with line breaks allowed after underscores."""
    return escaped(name).replace("_", "_<wbr>")


def status(run: RunFolder) -> tuple[str, str]:
    """The status of a run in a word ("" = unknown), and the reason or the time of its last row."""
    state = str(run.facts.get("status", ""))
    reason = str(run.facts.get("reason") or "")
    if state == "running" and run.rows:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(run.rows[-1].get("timestamp") or 0)))
        reason = f"last update {when}"
    return _STATUS.get(state, ""), reason


def key_figures(run: RunFolder, metrics: list[Chart]) -> list[tuple[str, str, str]]:
    """The figures at the top: name, value, remark."""
    total = run.total_kimg
    figures = [("Trained", f"{run.cur_kimg:,.6g} kimg", f"of {total:,.6g}" if total else "")]
    if run.rows:
        figures.append(("Time", format_duration(run.training_sec), "all restarts together"))
    speeds = [value for row in run.rows if row["cur_nimg"] and (value := mean(row, "Timing/sec_per_kimg")) is not None]
    if speeds:
        left = max((total or 0) - run.cur_kimg, 0) * speeds[-1]
        figures.append(("Speed", f"{speeds[-1]:.4g} s/kimg", f"about {format_duration(left)} left" if left else ""))
    for chart in metrics:
        values = chart.curves["value"]
        assert chart.best is not None  # set for every metric
        figures.append((chart.title, f"{values[chart.best]:.4g}", f"best, at {chart.x[chart.best]:g} kimg"))
    return figures


def images_part(grids: Grids) -> str:
    """The grids with the controls that step through time."""
    if not grids.fakes and grids.reals is None:
        return ""
    shown = "".join(image_element(grid, grid is grids.fakes[-1]) for grid in grids.fakes)
    controls, count = "", len(grids.fakes)
    if count:
        note = f" {count} of {grids.num_fakes} grids are in this file." if count < grids.num_fakes else ""
        controls = (
            f'<div class="player"><label for="slider">Generated at <span id="shown"></span></label>'
            f'<button type="button" id="back" aria-label="Earlier image">◀︎</button>'
            f'<input type="range" id="slider" min="0" max="{count - 1}" step="1" value="{count - 1}">'
            f'<button type="button" id="forth" aria-label="Later image">▶︎</button>'
            f'<button type="button" id="play">Play</button></div>'
        )
        shown = f"<figure><figcaption>Generated from fixed latents.{note}</figcaption>{shown}</figure>"
    if grids.reals:
        shown += f"<figure><figcaption>Real, for comparison.</figcaption>{image_element(grids.reals, True)}</figure>"
    return (
        f'<section aria-labelledby="images"><h2 id="images">Images</h2><div class="card">{controls}'
        f'<div class="grids">{shown}</div></div></section>'
    )


def image_element(grid: Grid, is_shown: bool) -> str:
    """An image element; the script shows one of the generated grids at a time."""
    what = "Real images" if grid.kimg is None else f"Images generated at {grid.kimg:g} kimg"
    kimg = "" if grid.kimg is None else f' data-kimg="{grid.kimg:g}"'
    hidden = "" if is_shown else " hidden"
    return f'<img src="{grid.url}" width="{grid.width}" height="{grid.height}" alt="{what}"{kimg}{hidden}>'


def charts_part(charts: list[Chart]) -> str:
    """Empty figures, in which the script draws the charts."""
    if not charts:
        return ""
    figures = "".join(
        f'<figure class="card" id="chart-{index}"><figcaption><h3>{breakable(chart.title)}</h3>'
        f'<p class="note">{escaped(chart.note)}</p></figcaption></figure>'
        for index, chart in enumerate(charts)
    )
    return (
        f'<section aria-labelledby="curves"><h2 id="curves">Curves</h2><noscript><p>The curves and the slider need '
        f'JavaScript, which is part of this file.</p></noscript><div class="charts">{figures}</div></section>'
    )


def settings_part(run: RunFolder) -> str:
    """Differences from the preset, all settings, and facts."""
    cards = []
    if run.options:
        lines = settings.lines(run.options)
        cards.append(f'<div class="card"><h3>Settings</h3>{differences_part(run)}<details><summary>All settings '
                     f"({len(lines)})</summary>{table(lines.items())}</details></div>")  # fmt: skip
    facts = facts_rows(run.facts)
    if facts:
        command = str(run.facts.get("command") or "")
        line = f"<details open><summary>To resume this run</summary><pre>{escaped(command)}</pre></details>"
        cards.append(f'<div class="card"><h3>This run</h3>{table(facts)}{line if command else ""}</div>')
    if not cards:
        return ""
    return (
        f'<section aria-labelledby="settings"><h2 id="settings">Settings and facts</h2><div class="columns">'
        f"{''.join(cards)}</div></section>"
    )


def differences_part(run: RunFolder) -> str:
    """The settings that differ from the preset."""
    name, theirs = str(run.options.get("preset", "")), run.preset_options()
    if theirs is None:
        return '<p class="note">The settings of the preset are unknown.</p>'
    changed = settings.differences(run.options, theirs)
    if not changed:
        return f"<p>Those of the preset “{escaped(name)}”.</p>"
    return table(changed, head=("Changed", "here", f"preset “{name}”"))


def facts_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts of images, networks, machine and versions."""
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
    """A count with thousands separators."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def log_part(run: RunFolder) -> str:
    """The warnings of the log, and its last lines."""
    if not run.log:
        return ""
    warnings = [line for line in run.log if line.startswith("Warning:")][-_LOG_LINES:]
    said = f"<h3>Warnings</h3><pre>{escaped(chr(10).join(warnings))}</pre>" if warnings else ""
    lines = escaped("\n".join(run.log[-_LOG_LINES:]))
    return (
        f'<section aria-labelledby="log"><h2 id="log">Log</h2><div class="card">{said}<details><summary>Last lines'
        f"</summary><pre>{lines}</pre></details></div></section>"
    )
