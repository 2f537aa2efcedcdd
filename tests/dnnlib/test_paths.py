"""Nothing is written inside what is read as images."""

from pathlib import Path

import pytest

from dnnlib.paths import require_outside, user_path


@pytest.mark.parametrize("written", ["images", "images/runs", "images/a/../runs", "link/runs", "images/./x.zip"])
def test_inside_is_refused(tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "link").symlink_to("images")
    for read in ("images", tmp_path / "images", "link"):
        with pytest.raises(ValueError, match=rf"--out={written} lies inside --data=.*outside"):
            require_outside(written, "--out", read, "--data")


@pytest.mark.parametrize("written", ["store/a", "store/a/new/x.zip", "store/1.png", "deep/runs"])
def test_inside_what_links_lead_to_is_refused(tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("images/sub", "store/a", "deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "images" / "sub" / "a").symlink_to("../../store/a")
    (tmp_path / "images" / "1.png").symlink_to("../store/1.png")
    (tmp_path / "images" / "loop").symlink_to(".")
    (tmp_path / "store" / "a" / "more").symlink_to(tmp_path / "deep")
    with pytest.raises(ValueError, match=rf"--out={written} lies inside --data=images"):
        require_outside(written, "--out", "images", "--data")
    require_outside("store/b", "--out", "images", "--data")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty path"),
        ("https://a.org/x.zip", "https://a.org/x.zip is an address"),
        ("hf://a/b/c.zip", "an address"),
    ],
)
def test_what_is_no_path_is_refused_as_given(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        user_path(text)


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
