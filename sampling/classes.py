"""Classes of a network, by number or name."""

from dnnlib.text import parse_int_list
from training.networks.generator import Generator


def find_class(generator: Generator, name: str | None, option: str = "--class") -> int | None:
    """The index of a class given by number or name. Raises ValueError."""
    if name is None:
        return None
    if generator.c_dim == 0:
        raise ValueError(f"{option}={name}: this network was trained without classes; leave the option out")
    if name in generator.class_names:
        return generator.class_names.index(name)
    if name.isdecimal() and int(name) < generator.c_dim:
        return int(name)
    names = f" or one of {', '.join(generator.class_names)}" if generator.class_names else ""
    raise ValueError(f"{option}={name}: there is no such class; choose 0-{generator.c_dim - 1}{names}")


def find_classes(generator: Generator, text: str | None) -> list[int]:
    """The indices of classes given by numbers, ranges or names, such as 0-3,7 or cat,dog; None = all. Raises ValueError."""
    if generator.c_dim == 0:
        raise ValueError("this network was trained without classes")
    if text is None:
        return list(range(generator.c_dim))
    found: list[int] = []
    for part in text.split(","):
        try:
            names = [part] if part in generator.class_names else [str(number) for number in parse_int_list(part)]
        except ValueError:  # neither a name nor numbers; find_class raises
            names = [part]
        for name in names:
            index = find_class(generator, name, "--classes")
            assert index is not None
            found.append(index)
    return found
