import json
from pathlib import Path

import pytest

from dnnlib.archive.file_tree import FileTree
from dnnlib.archive.label_table import LabelTable, labels_from_folders, read_label_table


def _read(folder: Path, content: object) -> LabelTable | None:
    (folder / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_label_table(FileTree(folder))


def test_class_indexes(tmp_path: Path) -> None:
    table = _read(tmp_path, {"labels": [["a\\1.png", 1], ["2.png", 0]], "class_names": ["cat", "dog"]})
    assert table is not None
    assert table.class_names == ("cat", "dog")
    assert table.labels_of(["2.png", "a/1.png"]) == [0, 1]


def test_vectors(tmp_path: Path) -> None:
    table = _read(tmp_path, {"labels": [["1.png", [0.5, 1]]]})
    assert table is not None
    assert table.labels_of(["1.png"]) == [(0.5, 1.0)]


@pytest.mark.parametrize("content", [{}, {"labels": None}, {"labels": None, "class_names": []}])
def test_unlabelled(tmp_path: Path, content: object) -> None:
    assert _read(tmp_path, content) is None


def test_no_file(tmp_path: Path) -> None:
    assert read_label_table(FileTree(tmp_path)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ([1], "must hold an object"),
        ({"labels": {"1.png": 0}}, "must be a list"),
        ({"labels": [["1.png"]]}, r"\['1.png'\] is not a"),
        ({"labels": [["1.png", 0], ["1.png", 0]]}, "1.png is labelled twice"),
        ({"labels": [["1.png", "cat"]]}, "label of 1.png is cat; write"),
        ({"labels": [["1.png", True]]}, "label of 1.png is True"),
        ({"labels": [["1.png", []]]}, "write a class index"),
        ('{"labels": [["1.png", [NaN]]]}', "write a class index"),
        ({"labels": [["1.png", [10**400]]]}, "label of 1.png is .10000"),
        ("[" * 100_000, "not valid JSON"),
        ({"labels": [["1.png", -1]]}, "class index of 1.png is -1"),
        ({"labels": [["1.png", 10**90]]}, r"class index of 1.png is 10{79}, outside 0..65,535"),
        ({"labels": [["1.png", 0]], "class_names": ["a"] * 65_537}, "has 65,537 classes; the limit is 65,536"),
        ({"labels": [["1.png", 2]], "class_names": ["a", "b"]}, r"1.png is 2, outside 0..1"),
        ({"labels": [["1.png", 0], ["2.png", [1.0]]]}, "2.png is a vector of length 1, that of 1.png a class index"),
        ({"labels": [["1.png", [1, 2]], ["2.png", [1]]]}, "2.png is a vector of length 1, that of 1.png .* length 2"),
        ({"labels": [["1.png", 0]], "class_names": [1]}, "class_names"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        _read(tmp_path, content)
    assert str(tmp_path) in str(caught.value)


def test_labels_must_fit_the_files() -> None:
    table = LabelTable({f"{index}.png": 0 for index in range(9)})
    with pytest.raises(ValueError, match=r"no label for a.png, b.png; label every"):
        table.labels_of(["a.png", "b.png", "1.png"])
    with pytest.raises(ValueError, match=r"do not exist: 1.png, 2.png, 3.png and 5 more"):
        table.labels_of(["0.png"])


def test_labels_from_folders() -> None:
    names = ["train/10/1.png", "train/9/sub/1.png", "train/9/2.png"]
    table = labels_from_folders(names, "here")
    assert table.class_names == ("9", "10")
    assert table.labels_of(names) == [1, 0, 0]


@pytest.mark.parametrize("names", [["1.png"], ["cat/1.png"], ["cat/1.png", "dog/1.png", "2.png"]])
def test_images_outside_class_folders_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match=rf"of here.*{names[-1]} is in none"):
        labels_from_folders(names, "here")
