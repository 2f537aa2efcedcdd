"""The page that lists all runs of a folder."""

from pathlib import Path
from typing import Any

from dnnlib.rundir import run_dirs
from training.run_report.document import render
from training.run_report.images import encoded, fake_files
from training.run_report.measurements import metric_charts
from training.run_report.page import best_value, status
from training.run_report.run_folder import read_run

_THUMBNAIL = (70, 480)  # quality, px


def make_index(outdir: Path) -> str:
    """Return the page of all runs in a folder, the newest first."""
    runs = [card(run_dir) for run_dir in reversed(run_dirs(outdir))]
    return render("index.html", has_script=False, name="Runs", outdir=outdir.resolve(), runs=runs)


def card(run_dir: Path) -> dict[str, Any]:
    """Return name, newest image, and facts of a run."""
    run = read_run(run_dir)
    newest = next((found for _, path in reversed(fake_files(run_dir)) if (found := encoded(path, *_THUMBNAIL))), None)
    total = f" of {run.total_kimg:,.6g}" if run.total_kimg else ""
    facts = [f"{run.cur_kimg:,.6g}{total} kimg", status(run)[0].lower()]
    facts += [f"{chart.title} {best_value(chart)}" for chart in metric_charts(run.metrics)]
    return {"name": run_dir.name, "image": newest, "facts": [fact for fact in facts if fact]}
