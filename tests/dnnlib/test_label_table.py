import json
import zipfile
from pathlib import Path

import pytest

from dnnlib.archive.image_tree import ImageTree
from dnnlib.archive.label_table import LabelTable, labels_from_folders, read_label_table


def _read(folder: Path, content: object) -> LabelTable | None:
    (folder / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_label_table(ImageTree(folder))


def test_class_indexes_or_none(tmp_path: Path) -> None:
    table = _read(tmp_path, {"labels": [["a\\1.png", 1], ["2.png", 0]], "class_names": ["cat", "dog"]})
    assert table is not None
    assert table.class_names == ("cat", "dog")
    assert table.labels_of(["2.png", "a/1.png"]) == [0, 1]
    for content in ({}, {"labels": None}, {"labels": None, "class_names": []}):
        assert _read(tmp_path, content) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ([1], "must hold an object"),
        ({"labels": {"1.png": 0}}, "must be a list"),
        ({"labels": [["1.png"]]}, r"\['1.png'\] is not a"),
        ({"labels": [["1.png", 0], ["1.png", 0]]}, "1.png is labelled twice"),
        ({"labels": [["1.png", "cat"]]}, "label of 1.png is 'cat'; write"),
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
        ({"labels": [["1.png", 0], ["./1.png", 1]]}, r'1.png is labelled twice, the second time as "./1.png"'),
        ({"1.png": 0, "2.png": 1}, 'file names but no "labels"'),
        ({"labels": [["1.png", [0.5, 1]]], "class_names": ["a", "b", "c"]}, "3 names, but the labels are vectors"),
        ({"labels": [["1.png", 0]], "class_names": ["\u00e9", "e\u0301"]}, "two classes named"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        _read(tmp_path, content)
    assert str(tmp_path) in str(caught.value)


NAMES = ["00/1.png", "00/2.png", "01/é.png"]


@pytest.mark.parametrize(
    ("files", "labelled"),
    [
        (NAMES, [f"./{name}" for name in NAMES]),
        (NAMES, [name.replace("/", "\\") for name in NAMES]),
        (NAMES, ["00//1.png", "00/./2.png", "01/e\u0301.png"]),
        (NAMES, [f"mydata/{name}" for name in NAMES]),  # a folder that was there when the labels were written
        ([f"a/mydata/{name}" for name in NAMES], NAMES),  # a folder around the images
        ([name.replace(".png", ".PNG") for name in NAMES], NAMES),
        (["1.png", "2.png"], ["train/1.png", "train/2.png"]),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_names_of_labels_and_files_may_be_spelled_differently(tmp_path, kind, files, labelled) -> None:
    labels = [[name, index] for index, name in enumerate(labelled)]
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in files:
            archive.writestr(name, b"")
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
        archive.extractall(tmp_path / "set")
    tree = ImageTree(tmp_path / ("set.zip" if kind == "zip" else "set"))
    table = read_label_table(tree)
    assert table is not None
    assert table.labels_of(tree.image_names()) == list(range(len(files)))


def test_dataset_json_of_the_folder_around_all_images_is_used_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "mydata" / "00").mkdir(parents=True)
    (tmp_path / "mydata" / "00" / "1.png").touch()
    (tmp_path / "readme.txt").touch()
    (tmp_path / "mydata" / "dataset.json").write_text(json.dumps({"labels": [["00/1.png", 4]]}))
    tree = ImageTree(tmp_path)
    table = read_label_table(tree)
    assert table is not None and table.labels_of(tree.image_names()) == [4]
    assert tree.left_out() == "1 .txt"
    (tmp_path / "other.png").touch()
    tree = ImageTree(tmp_path)
    assert read_label_table(tree) is None
    assert tree.left_out() == "1 .txt, 1 dataset.json in sub-folders"


def test_labels_must_fit_the_files() -> None:
    table = LabelTable({f"{index}.png": 0 for index in range(9)})
    with pytest.raises(ValueError, match=r"no label for a.png, b.png; label all images"):
        table.labels_of(["a.png", "b.png", *(f"{index}.png" for index in range(9))])
    with pytest.raises(ValueError, match=r"no label for IMG_1.png and labels for 0.png, 1.png, 2.png and 6 more"):
        table.labels_of(["IMG_1.png"])
    with pytest.raises(ValueError, match=r"labels for 1.png, 2.png, 3.png and 5 more, which are no images"):
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


@pytest.mark.parametrize("name", ["Dataset.json", "DATASET.JSON", "w/dataset.JSON"])
def test_letter_case_of_the_label_file(tmp_path: Path, name: str) -> None:
    folder = (tmp_path / name).parent
    folder.mkdir(exist_ok=True)
    (folder / "1.png").touch()
    (tmp_path / name).write_text(json.dumps({"labels": [["1.png", 4]]}))
    tree = ImageTree(tmp_path)
    table = read_label_table(tree)
    assert table is not None and table.labels_of(tree.image_names()) == [4]
    assert tree.left_out() == ""
