"""What the page shows, as plain values, as the query of its address, and as a command line that makes the same image."""

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from dnnlib.text import parse_number_list
from sampling.commands.options import MAX_SEED
from training.networks.attention import NOISE_MODES

MAX_AMOUNT = 5.0  # standard deviations of w
MIN_PSI, MAX_PSI = -1.0, 2.0
NUM_DIRECTIONS = 4  # per group of styles


def style_groups(num_ws: int) -> dict[str, tuple[int, ...]]:
    """The styles that the sliders of a group move: all of them, and the coarse, middle and fine thirds."""
    styles = tuple(range(num_ws))
    first, second = -(-num_ws // 3), -(-2 * num_ws // 3)
    groups = {"all": styles, "coarse": styles[:first], "middle": styles[first:second], "fine": styles[second:]}
    return {name: group for name, group in groups.items() if group}


@dataclass(frozen=True)
class View:
    """Settings of one image; styles found by projection are kept beside them."""

    seed: int = 0
    label: str = ""  # class by number or name, or a label vector; "" = as `generate.py` without --class and --label
    trunc: float = 1.0  # truncation psi
    noise: str = "const"
    mix: int | None = None  # the seed whose styles replace the last ones; None = no mixing
    mix_from: int = 0  # the first style that is replaced
    snapshot: str = ""  # file name of another snapshot of the run; "" = that of --network
    moves: dict[tuple[str, int], float] = field(default_factory=dict)  # (group, direction) -> standard deviations of w

    def __post_init__(self) -> None:
        for name in ("seed", "mix"):
            seed = getattr(self, name)
            if seed is not None and not 0 <= seed <= MAX_SEED:
                raise ValueError(f"{name}={seed} must lie in 0..{MAX_SEED}")
        if not MIN_PSI <= self.trunc <= MAX_PSI:
            raise ValueError(f"trunc={self.trunc:g} must lie in {MIN_PSI:g}..{MAX_PSI:g}")
        if self.noise not in NOISE_MODES:
            raise ValueError(f"noise={self.noise!r} must be one of {', '.join(NOISE_MODES)}")
        for (group, direction), amount in self.moves.items():
            if not abs(amount) <= MAX_AMOUNT or direction not in range(NUM_DIRECTIONS):
                raise ValueError(f"move={group}.{direction}:{amount:g}: directions are 0..{NUM_DIRECTIONS - 1}, "
                                 f"amounts -{MAX_AMOUNT:g}..{MAX_AMOUNT:g}")  # fmt: skip

    def query(self) -> str:
        """The settings that differ from the default, such as seed=7&trunc=0.7&move=coarse.0:1.5."""
        values = {}
        for setting in dataclasses.fields(self)[:-1]:
            if (value := getattr(self, setting.name)) != setting.default:
                values[setting.name] = f"{value:g}" if isinstance(value, float) else str(value)
        if moves := [f"{group}.{index}:{amount:g}" for (group, index), amount in self.moves.items() if amount]:
            values["move"] = ",".join(moves)
        return urlencode(values)

    @classmethod
    def from_query(cls, values: Mapping[str, str], num_ws: int) -> "View":
        """What `query` wrote. Raises ValueError naming the setting that is wrong."""
        chosen: dict[str, object] = {}
        for name, text in values.items():
            if name in ("seed", "mix", "mix_from"):
                if not text.isdecimal():
                    raise ValueError(f"{name}={text!r} in the address is not a whole number")
                chosen[name] = int(text)
                if name == "mix_from" and int(text) >= num_ws:
                    raise ValueError(f"mix_from={text}: this network has the styles 0-{num_ws - 1}")
            elif name == "trunc":
                chosen[name] = parse_number_list(text)[0]
            elif name in ("label", "noise", "snapshot"):
                chosen[name] = text
            elif name == "move":
                chosen["moves"] = parse_moves(text, num_ws)
        return cls(**chosen)  # type: ignore[arg-type]

    def command(self, network: str, is_classes: bool, has_found: bool, num_ws: int) -> str:
        """The command line that makes the same image; moved and found styles come from the saved w.npz."""
        words = ["python", "generate.py", f"--network={network}"]
        if has_found or any(self.moves.values()):
            words.append("--w=w.npz")
        else:
            if self.mix is not None:
                words.insert(2, "mix")
                words += [f"--rows={self.seed}", f"--cols={self.mix}", f"--col-styles={self.mix_from}-{num_ws - 1}"]
            else:
                words.append(f"--seeds={self.seed}")
            if self.label:
                words.append(f"--{'class' if is_classes else 'label'}={self.label}")
            if self.trunc != 1:
                words.append(f"--trunc={self.trunc:g}")
        if self.noise != "const":
            words.append(f"--noise-mode={self.noise}")
        return shlex.join([*words, "--outdir=out"])

    def image_name(self, has_found: bool) -> str:
        """The name of the file that `command` writes."""
        if has_found or any(self.moves.values()):
            return "w0000.png"
        return f"seed{self.seed:04d}.png" if self.mix is None else f"{self.seed}-{self.mix}.png"


def parse_moves(text: str, num_ws: int) -> dict[tuple[str, int], float]:
    """The moves of GROUP.DIRECTION:AMOUNT,... Raises ValueError."""
    moves = {}
    for part in text.split(","):
        place, _, amount = part.partition(":")
        group, _, index = place.partition(".")
        if group not in style_groups(num_ws) or not index.isdecimal():
            raise ValueError(f"move={part!r} in the address: write GROUP.DIRECTION:AMOUNT, such as coarse.0:1.5")
        moves[group, int(index)] = parse_number_list(amount)[0]
    return moves
