"""The labels that images are generated with: of a class by number or name, a given vector, or those of the data set."""

import re

import numpy as np
import torch
from torch import Tensor

from dnnlib.names import normal_text
from dnnlib.paths import user_path
from dnnlib.text import parse_int_list, parse_number_list
from sampling.renderer import device_of
from training.networks.generator import Generator


def choose_labels(generator: Generator, class_name: str | None, label: str | None) -> Tensor | None:
    """Label vectors to be used in turn, [n, c_dim]; None = the classes in turn, or no labels at all.

    Raises ValueError for a class or vector that does not fit the network, and for none where labels are vectors and no data
    set has them.
    """
    if label is not None:
        if class_name is not None:
            raise ValueError(f"--class={class_name} and --label={label}: give one of them")
        return parse_label(generator, label)
    if class_name is not None:
        return torch.eye(generator.c_dim, device=device_of(generator))[[find_class(generator, class_name)]]
    return labels_of_data(generator) if generator.labels_are_vectors else None


def parse_label(generator: Generator, text: str) -> Tensor:
    """The vector of --label, [1, c_dim]. Raises ValueError."""
    if generator.c_dim == 0:
        raise ValueError(f"--label={text}: this network was trained without labels; leave the option out")
    try:
        values = parse_number_list(text)
    except ValueError as error:
        raise ValueError(f"--label={text}: {error}") from None
    if len(values) != generator.c_dim:
        raise ValueError(
            f"--label={text} has {len(values)} numbers, but the labels of this network have {generator.c_dim}"
        )
    if max(map(abs, values)) > torch.finfo(torch.float32).max:
        raise ValueError(f"--label={text}: too large for a float32 number")
    return torch.tensor([values], device=device_of(generator))


def labels_of_data(generator: Generator) -> Tensor:
    """The labels of the training set in a fixed random order, [images, c_dim]. Raises ValueError if it is not here."""
    from training.data.dataset import ImageDataset
    from training.evaluation.inputs import describe_relation, is_training_set

    path = generator.run_config.data.path if generator.run_config else ""
    length = generator.c_dim
    advice = f"the labels of this network are vectors of length {length}; give one as --label={example(generator)}"
    if not path or not user_path(path).exists():
        raise ValueError(f"{advice} (the images it was trained on are not at {path or 'a known path'})")
    dataset = ImageDataset(path, use_labels=True)
    labels = dataset.labels()
    if labels.shape[1] != length:
        raise ValueError(f"{advice} (those in {path} have length {labels.shape[1]})")
    relation = describe_relation(is_training_set(generator.snapshot, dataset), dataset, generator.run_config)
    print(f"Labels: vectors of length {length}, drawn from {dataset.path.resolve()}, {relation}")
    order = np.random.default_rng(0).permutation(len(labels))
    return torch.from_numpy(labels[order]).to(device_of(generator))


def find_class(generator: Generator, name: str, option: str = "--class") -> int:
    """The index of a class given by number or name. Raises ValueError, also if both fit, for different classes."""
    check_classes(generator, f"{option}={name}")
    names = generator.class_names
    kind, _, rest = name.partition(":")
    is_prefixed = kind in ("name", "number") and normal_text(name) not in names
    word = normal_text(rest if is_prefixed else name)
    word = word if word in names else word.strip()
    as_name = names.index(word) if word in names else None
    as_number = int(word) if re.fullmatch(r"\d{1,9}", word) and int(word) < generator.c_dim else None
    if is_prefixed:
        as_name, as_number = (as_name, None) if kind == "name" else (None, as_number)
    if as_name is not None and as_number is not None and as_name != as_number:
        raise ValueError(
            f"{option}={name} is the name of class {as_name}, but also the number of class '{names[as_number]}'; "
            f"write {option}=name:{name} or {option}=number:{name}"
        )
    found = as_number if as_name is None else as_name
    if found is None:
        raise ValueError(f"{option}={name!r}: {no_such_class(generator)}")
    return found


def no_such_class(generator: Generator) -> str:
    """What to write instead of a class that does not exist."""
    names = generator.class_names
    known = f" or one of {', '.join(map(repr, names[:20]))}{', ...' if len(names) > 20 else ''}" if names else ""
    return f"there is no such class; choose {f'0-{generator.c_dim - 1}' if generator.c_dim > 1 else 0}{known}"


def find_classes(generator: Generator, text: str | None) -> list[int]:
    """The indices of classes given by numbers, ranges or names, such as 0-3,7 or cat,dog; None = all. Raises ValueError."""
    check_classes(generator, "generate.py classes", "a label without the word classes")
    if text is None:
        return list(range(generator.c_dim))
    names = generator.class_names
    parts = [text] if normal_text(text) in names else text.split(",")  # a name may have commas
    return [index for part in parts for index in find_range(generator, part)]


def find_range(generator: Generator, text: str) -> list[int]:
    """The classes of a name, a number, or a range of numbers, such as cat, 7, 0-3, name:0-3. Raises ValueError."""
    word = text.removeprefix("number:")
    if text.startswith("name:") or "-" not in word or not re.fullmatch(r"[\d\s-]+", word):
        return [find_class(generator, text, "--classes")]
    if text == word and normal_text(text) in generator.class_names:
        raise ValueError(
            f"--classes={text} is the name of a class, but also a range of numbers; write --classes=name:{text} or "
            f"--classes=number:{text}"
        )
    try:
        numbers = parse_int_list(word)
    except ValueError:
        numbers = [generator.c_dim]
    if numbers[-1] >= generator.c_dim:
        raise ValueError(f"--classes={text!r}: {no_such_class(generator)}")
    prefix = text.removesuffix(word)
    return [find_class(generator, f"{prefix}{number}", "--classes") for number in numbers]


def check_classes(generator: Generator, what: str, remedy: str = "one") -> None:
    """Raise ValueError unless the network has classes."""
    if generator.c_dim == 0:
        raise ValueError(f"{what}: this network was trained without classes; leave it out")
    if generator.labels_are_vectors:
        raise ValueError(
            f"{what}: the labels of this network are vectors of length {generator.c_dim}, not classes; "
            f"give {remedy} as --label={example(generator)}"
        )


def example(generator: Generator) -> str:
    """A vector as --label takes it."""
    return ",".join(["1"] + ["0"] * (generator.c_dim - 1)) if generator.c_dim <= 8 else "V1,V2,..."
