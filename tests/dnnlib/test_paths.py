"""Nothing is written inside what is read as images."""

from pathlib import Path

import pytest

from dnnlib.paths import require_outside, user_path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: images, of which links lead to store/a, store/1.png, deep and runs, and links to both."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images/sub", "images/a", "store/a", "deep", "runs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to("images")
    (tmp_path / "away").symlink_to("runs")
    (tmp_path / "images" / "sub" / "a").symlink_to("../../store/a")
    (tmp_path / "images" / "sub" / "more").symlink_to(tmp_path / "runs")
    (tmp_path / "images" / "1.png").symlink_to("../store/1.png")
    (tmp_path / "images" / "loop").symlink_to(".")
    (tmp_path / "store" / "a" / "more").symlink_to(tmp_path / "deep")
    return tmp_path


INSIDE = [
    "images", "images/runs", "images/a/../runs", "link/runs", "images/./x.zip", "store/a", "store/a/new/x.zip", "store/1.png",
    "deep/runs", "runs", "runs/a", "images/sub/more/runs", "away/a",
]  # fmt: skip


@pytest.mark.parametrize("written", INSIDE)
def test_inside_is_refused_through_links_too(here: Path, written: str) -> None:
    for read in ("images", here / "images", "link"):
        with pytest.raises(ValueError, match=rf"--out={written} lies inside --data=.*outside"):
            require_outside(written, "--out", read, "--data")


@pytest.mark.parametrize("written", ["store/b", "images2", "images/../other", "."])
def test_outside_is_taken_as_is_anything_if_there_are_no_images(here: Path, written: str) -> None:
    require_outside(written, "--out", "images", "--data")
    (here / "circle").symlink_to("circle")
    for read in ("circle", "missing"):
        require_outside(written, "--out", read, "--data")


def test_paths_are_expanded_and_what_is_none_is_refused_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for text, path in {"~/x": "/home/me/x", "~": "/home/me", "~no-one/x": "~no-one/x", "a~b": "a~b"}.items():
        assert user_path(text) == Path(path)
    for text, message in {"": "empty path", "https://a.org/x.zip": "https://a.org/x.zip is an address"}.items():
        with pytest.raises(ValueError, match=message):
            user_path(text)


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="lies inside"):
        require_outside(tmp_path / "set.zip", "--dest", tmp_path / "set.zip", "--source")
    require_outside(tmp_path / "other.zip", "--dest", tmp_path / "set.zip", "--source")
