"""Nothing is written inside what is read as images."""

from pathlib import Path

import pytest

from dnnlib.paths import require_outside


@pytest.mark.parametrize("written", ["images", "images/runs", "images/a/../runs", "link/runs", "images/./x.zip"])
def test_inside_is_refused(tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to("images")
    for read in ("images", tmp_path / "images", "link"):
        with pytest.raises(ValueError, match=rf"--out={written} lies inside --data=.*outside"):
            require_outside(written, "--out", read, "--data")


@pytest.mark.parametrize("written", ["runs", "runs/a", "images/sub/more/runs", "away/a"])
def test_a_folder_linked_into_the_images_is_inside(
    tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "images" / "sub" / "more").symlink_to(tmp_path / "runs")
    (tmp_path / "away").symlink_to("runs")
    with pytest.raises(ValueError, match="lies inside"):
        require_outside(written, "--out", "images", "--data")


@pytest.mark.parametrize("read", ["loop", "missing"])
def test_what_does_not_exist_contains_nothing(tmp_path: Path, read: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    require_outside(tmp_path / "runs", "--out", tmp_path / read, "--data")


@pytest.mark.parametrize("written", ["runs", "images2", "images/../runs", "."])
def test_outside_is_taken(tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    require_outside(written, "--out", "images", "--data")


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="lies inside"):
        require_outside(tmp_path / "set.zip", "--dest", tmp_path / "set.zip", "--source")
    require_outside(tmp_path / "other.zip", "--dest", tmp_path / "set.zip", "--source")
