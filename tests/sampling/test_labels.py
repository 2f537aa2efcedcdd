"""Labels: classes by number or name, given vectors, and those of a data set of vectors."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sampling.labels import choose_labels, find_class, find_classes
from sampling.renderer import labels
from training.config import DataConfig, DatasetSpec, RunConfig
from training.networks.generator import Generator


def make(config: RunConfig, names: tuple[str, ...] = (), vectors: bool = False, length: int = 3) -> Generator:
    return Generator(config.generator, DatasetSpec(16, 16, 3, length, names, vectors))


def test_classes_by_number_range_and_name(conditional: Generator) -> None:
    assert find_classes(conditional, None) == [0, 1, 2]
    assert find_classes(conditional, "blue,0-1,name:red,number:1-2") == [2, 0, 1, 0, 1, 2]
    for text in ("0-3", "yellow", "red,", "1-0", "name:0", "number:red", "1" * 5000):
        with pytest.raises(ValueError, match=r"--classes=.*there is no such class; choose 0-2 or one of 'red'"):
            find_classes(conditional, text)


def test_a_number_that_is_the_name_of_another_class_is_refused(tiny_config: RunConfig) -> None:
    generator = make(tiny_config, ("1", "2", "2020"))
    for name in ("1", "2"):
        with pytest.raises(ValueError, match=rf"write --class=name:{name} or --class=number:{name}"):
            find_class(generator, name)
    assert [find_class(generator, name) for name in ("0", "2020")] == [0, 2]
    assert [find_class(generator, f"{kind}:1") for kind in ("name", "number")] == [0, 1]
    assert find_class(make(tiny_config, ("0", "1", "2")), "1") == 1  # digits: both are the same class
    with pytest.raises(ValueError, match="write --classes=name:1"):
        find_classes(generator, "0-2")
    assert find_classes(generator, "number:0-2") == [0, 1, 2]
    assert find_class(make(tiny_config, ("name:x", "x", "number:1")), "name:x") == 0


def test_a_name_is_found_in_any_unicode_form_and_with_spaces_around(tiny_config: RunConfig) -> None:
    generator = make(tiny_config, ("Caf\u00e9", "black cat", "cat, big"))
    for name in ("Cafe\u0301", "name:Cafe\u0301", " Caf\u00e9 "):
        assert find_class(generator, name) == 0
    assert find_classes(generator, "black cat, Cafe\u0301") == [1, 0]
    assert find_classes(generator, "cat, big") == [2]
    with pytest.raises(ValueError, match="--class='Black cat': there is no such class; choose 0-2 or one of 'Café'"):
        find_class(generator, "Black cat")


def test_a_range_that_is_the_name_of_a_class_is_refused(tiny_config: RunConfig) -> None:
    generator = make(tiny_config, ("0-2", "3-12", "13-19"))  # years of age
    for text in ("0-2", "13-19,0-2"):
        with pytest.raises(ValueError, match=r"write --classes=name:(.*) or --classes=number:\1"):
            find_classes(generator, text)
    assert find_classes(generator, "name:13-19,number:0-1,2") == [2, 0, 1, 2]


def test_a_vector_is_given(tiny_config: RunConfig, conditional: Generator) -> None:
    for generator in (conditional, make(tiny_config, vectors=True)):
        chosen = choose_labels(generator, None, "0.7,-1,0.3")
        torch.testing.assert_close(labels(generator, [4, 5], chosen), torch.tensor([[0.7, -1, 0.3]] * 2))
    for text in ("0.7,0", "a,b,c", "1,nan,0", "1,inf,0", "1,1e39,0", ""):
        with pytest.raises(ValueError, match="--label="):
            choose_labels(conditional, None, text)
    with pytest.raises(ValueError, match="--class=red and --label=1,0,0: give one of them"):
        choose_labels(conditional, "red", "1,0,0")
    with pytest.raises(ValueError, match="trained without labels"):
        choose_labels(make(tiny_config, length=0), None, "1")


def test_vectors_are_drawn_from_the_data(tiny_config, tmp_path, capsys) -> None:
    generator = make(tiny_config, vectors=True)
    for name in ("2", "number:2"):
        with pytest.raises(ValueError, match="vectors of length 3, not classes; give one as --label=1,0,0"):
            choose_labels(generator, name, None)
    with pytest.raises(ValueError, match="not classes; give a label without the word classes as --label="):
        find_classes(generator, None)
    with pytest.raises(ValueError, match="give one as --label=1,0,0"):
        choose_labels(generator, None, None)
    vectors = np.random.default_rng(0).random((6, 3)).round(3)
    for index in range(6):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{index}.png")
    table = [[f"{index}.png", vector.tolist()] for index, vector in enumerate(vectors)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": table}))
    generator.run_config = RunConfig(data=DataConfig(str(tmp_path), cond=True))
    chosen = choose_labels(generator, None, None)
    assert chosen is not None and sorted(chosen.tolist()) == sorted(vectors.astype(np.float32).tolist())
    assert torch.equal(labels(generator, [1, 7], chosen), chosen[[1, 1]])
    assert "vectors of length 3, drawn from" in capsys.readouterr().out
