"""The page that lists all runs of a folder."""

import time
from pathlib import Path
from urllib.parse import quote

from dnnlib.rundir import run_dirs
from training.run_report.document import document, escaped
from training.run_report.images import encoded, fake_files
from training.run_report.measurements import metric_charts
from training.run_report.page import status
from training.run_report.run_folder import read_run

_THUMBNAIL = (70, 480)  # quality, px


def make_index(outdir: Path) -> str:
    """Return the page of all runs in a folder, the newest first."""
    runs = "".join(f"<li>{card(run_dir)}</li>" for run_dir in reversed(run_dirs(outdir)))
    listed = f'<ul class="runs">{runs}</ul>' if runs else "<p>There is no run here yet: train.py makes one.</p>"
    body = (
        f'<header><h1>Runs</h1><p class="state"><span class="soft">{escaped(outdir.resolve())}</span></p></header>'
        f"<main>{listed}</main><footer>Updated {time.strftime('%Y-%m-%d %H:%M')}; reload to update.</footer>"
    )
    return document("Runs – Styleformer", body, script=False)


def card(run_dir: Path) -> str:
    """Return the card of a run: newest images, name, progress, best metrics."""
    run = read_run(run_dir)
    newest = next((found for _, path in reversed(fake_files(run_dir)) if (found := encoded(path, *_THUMBNAIL))), None)
    image = f'<img src="{newest.url}" width="{newest.width}" height="{newest.height}" alt="">' if newest else ""
    total = f" of {run.total_kimg:,.6g}" if run.total_kimg else ""
    word, _ = status(run)
    facts = [f"{run.cur_kimg:,.6g}{total} kimg", word.lower()]
    for chart in metric_charts(run.metrics):
        assert chart.best is not None  # set for every metric
        facts.append(f"{chart.title} {chart.curves['value'][chart.best]:.4g}")
    lines = " · ".join(escaped(fact) for fact in facts if fact)
    box = f'<div class="card">{image}<h2>{escaped(run_dir.name)}</h2><p class="soft">{lines}</p></div>'
    return f'<a href="/{quote(run_dir.name)}/">{box}</a>'
