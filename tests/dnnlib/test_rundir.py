import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dnnlib.rundir import Tee, create_run_dir, run_dirs, tee_output


def test_numbers_count_up_from_the_highest(tmp_path: Path) -> None:
    outdir = tmp_path / "runs"
    assert run_dirs(outdir) == []
    assert create_run_dir(outdir, "demo").name == "00000-demo"
    (outdir / "00007-other").mkdir()
    (outdir / "notes").mkdir()
    (outdir / "00009-file").touch()
    assert create_run_dir(outdir, "demo").name == "00008-demo"
    assert [path.name for path in run_dirs(outdir)] == ["00000-demo", "00007-other", "00008-demo"]


def test_simultaneous_runs_get_different_numbers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(lambda index: create_run_dir(tmp_path, f"run{index}").name, range(48)))
    assert len({name.split("-")[0] for name in names}) == 48
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)  # no claims are left


def test_tee_output_appends_both_streams_and_exceptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    log.write_text("before\n")
    with tee_output(log):
        print("out")
        print("err", file=sys.stderr)
        print("no end", end="")
    print("not logged")
    assert log.read_text() == "before\nout\nerr\nno end\n"
    assert capsys.readouterr() == ("out\nno endnot logged\n", "err\n")
    with pytest.raises(ZeroDivisionError), tee_output(log):
        _ = 1 / 0
    assert log.read_text().endswith("ZeroDivisionError: division by zero\n")


def test_log_gets_a_progress_bar_once() -> None:
    console, log = io.StringIO(), io.StringIO()
    tee = Tee(console, log)
    for text in ["\r10%", "\r20%", "50%\r", "60%\r", "100%\r", "\n", "done\r\n", "next"]:
        tee.write(text)
    tee.finish()
    assert log.getvalue() == "100%\ndone\nnext\n"
    assert console.getvalue().count("%") == 5
