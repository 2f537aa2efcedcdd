"""Classes of a network by number or name."""

from training.networks.generator import Generator


def find_class(generator: Generator, name: str | None) -> int | None:
    """The index of a class given by number or name; raises ValueError."""
    if name is None:
        return None
    if generator.c_dim == 0:
        raise ValueError(f"--class={name}: this network was trained without classes; leave the option out")
    if name in generator.class_names:
        return generator.class_names.index(name)
    if name.isdecimal() and int(name) < generator.c_dim:
        return int(name)
    names = f" or one of {', '.join(generator.class_names)}" if generator.class_names else ""
    raise ValueError(f"--class={name}: there is no such class; choose 0-{generator.c_dim - 1}{names}")
