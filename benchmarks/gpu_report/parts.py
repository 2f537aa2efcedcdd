"""The parts of a report: the command each runs, its time limit, and the results read from its files."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_report import results
from benchmarks.gpu_report.budget import Need
from benchmarks.gpu_report.chart import draw_chart
from benchmarks.gpu_report.child import GRACE_SEC, ROOT, Outcome
from dnnlib.files import atomic_write
from dnnlib.rundir import run_dirs
from training.run_report.run_folder import read_object

Collect = Callable[[Outcome], dict[str, Any]]

SPEED_SHARE = 0.8  # of the measured images/s that the training is planned with
GUESSED_IMAGES_PER_SEC = {"cuda": 300.0, "cpu": 20.0}  # where nothing was measured
START_UP_SEC = 25.0  # of train.py without compilation: imports, decoding, first images
TICKS, SNAPSHOTS = 24, 3  # of the training
LOSSES_FILE, CURVE_FILE, GRID_FILE, REALS_FILE = "losses.png", "training.png", "grid.png", "reals.png"
IMAGE_FILES = (LOSSES_FILE, CURVE_FILE, GRID_FILE, REALS_FILE)


@dataclass(frozen=True)
class Part:
    """One command of the report."""

    name: str
    title: str
    need: Need
    command: Callable[[float], list[str]]  # made of the seconds it may take
    collect: Collect
    why_skip: str = ""  # "" = it is to run
    max_lines: int = 40  # of its output in the report


@dataclass(frozen=True)
class Settings:
    """The values of the command line."""

    outdir: Path
    data: Path | None  # None = the built-in digits
    cfg: str
    device: str  # cuda or cpu
    half: str  # bf16, or fp16 where the GPU does not multiply bf16
    is_quick: bool
    seed: int

    @property
    def steps_cfg(self) -> str:
        """Preset of everything but the training."""
        return "demo" if self.is_quick else "cifar"


@dataclass(frozen=True)
class Variant:
    """One way to compute that the report compares."""

    name: str  # as the report spells it
    mode: str  # as benchmarks.modes spells it
    ops: str  # of bias_act and upfirdn2d: reference or native
    least_sec: float
    most_sec: float


def gpu_variants(half: str) -> list[Variant]:
    """Return what runs on a GPU, most informative first; `half` is bf16, or fp16 before Ampere, which has no TF32."""
    tf32 = [Variant("tf32", "tf32", "reference", 12, 45)] if half == "bf16" else []
    return [
        Variant("fp32", "fp32", "reference", 15, 60),
        Variant(half, half, "reference", 12, 45),
        Variant(f"{half}+compile", f"{half}+compile", "reference", 40, 170),  # the first to compile, others profit
        *tf32,
        Variant(f"{half}+compile+graphs", f"{half}+graphs", "reference", 20, 110),
        Variant(f"{half}+compile+native", f"{half}+compile", "native", 20, 110),
    ]


def cpu_variants() -> list[Variant]:
    """Return what runs on every CPU."""
    return [Variant("fp32", "fp32", "reference", 15, 120), Variant("bf16", "bf16", "reference", 15, 120)]


def python(*arguments: object) -> list[str]:
    """Return a command of this Python."""
    return [sys.executable, *map(str, arguments)]


def gpu_tests() -> list[Path]:
    """The files of tests that need a GPU; those of whole steps first, in case time runs out."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    return sorted(files, key=lambda path: path.name not in ("test_step_gpu.py", "test_gpu.py"))


def planned_kimg(limit_sec: float, images_per_sec: float, start_up_sec: float) -> float:
    """Thousands of images that training sees in this time, GRACE_SEC of which are kept for the last files."""
    return max((limit_sec - GRACE_SEC - start_up_sec) * images_per_sec * SPEED_SHARE, 64.0) / 1000


class Parts:
    """Makes the parts, and keeps the results that later ones need."""

    def __init__(self, settings: Settings, work: Path) -> None:
        self.settings, self.work = settings, work
        self.digits, self.runs = work / "digits.zip", work / "runs"
        self.modes: dict[str, dict[str, Any]] = {}  # what each mode measured
        self.variants = cpu_variants() if settings.device == "cpu" else gpu_variants(settings.half)

    def all(self) -> list[Part]:
        """Return all parts in the order in which they run: short ones first, then those that take the remaining time."""
        without_gpu = "" if self.settings.device == "cuda" else "needs a GPU"
        without_pytest = "" if importlib.util.find_spec("pytest") else "pytest is not installed: pip install pytest"
        native = "torch_utils.ops.native"
        tests = ["pytest", "-q", "-m", "gpu", "-k", "not sanitizer", *gpu_tests()]
        return [
            self.plain("doctor", "Doctor", Need(10, 45), python("-m", "torch_utils.doctor")),
            self.plain("native", "Native operators", Need(20, 120), python("-m", native), without_gpu),
            self.pack(),
            *(self.mode(variant) for variant in self.variants),
            *self.steps(),
            self.plain("tests", "GPU tests", Need(20, 120), python("-m", *tests), without_gpu or without_pytest),
            self.training(),
            self.proxies(),
        ]

    def plain(self, name: str, title: str, need: Need, command: list[str], why_skip: str = "") -> Part:
        """Return a part of which only the last line counts."""

        def collect(outcome: Outcome) -> dict[str, Any]:
            return {"summary": outcome.last_line}

        return Part(name, title, need, lambda limit_sec: command, collect, why_skip)

    def pack(self) -> Part:
        """Return the built-in digits, which the modes are compared on everywhere alike."""
        few = ["--max-images=200"] if self.settings.is_quick else []
        command = python("dataset_tool.py", "--source=demo", f"--dest={self.digits}", *few)
        return self.plain("digits", "Packing the digits", Need(5, 60), command)

    def mode(self, variant: Variant) -> Part:
        """Return some steps in one mode."""
        path = self.work / f"{variant.name}.json"
        command = python(
            "-m", "benchmarks.gpu_report.side_by_side", f"--mode={variant.mode}", f"--ops={variant.ops}",
            f"--data={self.digits}", f"--cfg={self.settings.steps_cfg}", f"--steps={20 if self.settings.is_quick else 200}",
            f"--seed={self.settings.seed}", f"--json={path}",
        )  # fmt: skip

        def collect(outcome: Outcome) -> dict[str, Any]:
            values = read_object(path)
            if values:
                self.modes[variant.name] = values
                draw_chart(self.settings.outdir / LOSSES_FILE, results.loss_panels(self.modes))
                speed = values["images_per_sec"]
                values["summary"] = f"{values['rows'][-1]['step']} steps" + (f", {speed:.1f} images/s" if speed else "")
            return values

        need = Need(variant.least_sec, variant.most_sec)
        return Part(f"mode:{variant.name}", f"Mode {variant.name}", need, lambda limit_sec: command, collect)

    def steps(self) -> list[Part]:
        """benchmarks/train_step.py, each batch in a separate process."""
        if self.settings.is_quick or self.settings.device == "cpu":
            return [self.step_part(2 if self.settings.is_quick else 4, ["fp32"], Need(20, 200))]
        half = self.settings.half
        return [
            self.step_part(32, ["fp32", half, f"{half}+compile", f"{half}+graphs"], Need(50, 150)),
            self.step_part(256, [half, f"{half}+compile"], Need(40, 110)),
        ]

    def step_part(self, batch: int, modes: list[str], need: Need) -> Part:
        """Return the phases of training at one batch, and their largest kernels."""
        path = self.work / f"steps-{batch}.json"
        command = python(
            "benchmarks/train_step.py", f"--preset={self.settings.steps_cfg}", f"--batch={batch}",
            f"--device={self.settings.device}", f"--modes={','.join(modes)}", "--rounds=3", "--profile", f"--json={path}",
            *(["--quick"] if self.settings.is_quick else []),
        )  # fmt: skip

        def collect(outcome: Outcome) -> dict[str, Any]:
            return results.read_steps(path, outcome.output)

        title = f"Training steps, batch {batch}"
        return Part(f"steps:{batch}", title, need, lambda limit_sec: command, collect, max_lines=120)

    @property
    def data(self) -> Path:
        """What is trained on."""
        return self.settings.data or self.digits

    def run_folder(self) -> Path | None:
        """Return the folder of the training, if it has begun."""
        return next(reversed(run_dirs(self.runs)), None)

    def speed(self) -> tuple[float, float]:
        """Images per second and seconds of start-up that the training is planned with."""
        half = self.settings.half
        for name in (f"{half}+compile", half, "fp32") if self.settings.device == "cuda" else ("fp32",):
            values = self.modes.get(name, {})
            if values.get("images_per_sec"):
                return values["images_per_sec"], START_UP_SEC + values["start_up_sec"] / 2  # the rest is in the cache
        return GUESSED_IMAGES_PER_SEC[self.settings.device], 2 * START_UP_SEC

    def training(self) -> Part:
        """Real training for the time that is left."""

        def command(limit_sec: float) -> list[str]:
            kimg = planned_kimg(limit_sec, *self.speed())
            kimg = min(kimg, 0.2) if self.settings.is_quick else kimg
            return python(
                "train.py", f"--outdir={self.runs}", f"--data={self.data}", f"--cfg={self.settings.cfg}",
                f"--seed={self.settings.seed}", "--metrics=none", f"--kimg={kimg:.3f}", f"--tick={kimg / TICKS:.4f}",
                f"--snap={TICKS // SNAPSHOTS}", "--keep=1", "--state-kimg=1000000",
                f"--stop-after={max(int(limit_sec - GRACE_SEC), 5)}s",
            )  # fmt: skip

        return Part("training", "Training", Need(90, 3600), command, self.collect_training)

    def collect_training(self, outcome: Outcome) -> dict[str, Any]:
        """Take grid and curve into the report."""
        folder = self.run_folder()
        values, panels = results.read_training(folder)
        draw_chart(self.settings.outdir / CURVE_FILE, panels)
        for pattern, name in (("fakes[0-9]*.png", GRID_FILE), ("reals.png", REALS_FILE)):
            image = results.newest(folder, pattern)
            if image is not None:
                with atomic_write(self.settings.outdir / name) as file, open(image, "rb") as source:
                    shutil.copyfileobj(source, file)
        return {"preset": self.settings.cfg, "data": self.data.name, **values} if values else {}

    def proxies(self) -> Part:
        """Distances of the last snapshot's images from the real ones that need no downloaded weights."""
        names = ["proxy_fd_randconv_v1"]
        if not self.settings.is_quick:
            names += [] if self.settings.data else ["proxy_fd_clf_v1"]  # it needs labels, as the demo set has
        folder = self.work / "metrics"

        def command(limit_sec: float) -> list[str]:
            network = results.newest(self.run_folder(), "network-snapshot-[0-9]*.pkl") or "no-snapshot"
            return python(
                "calc_metrics.py", f"--network={network}", f"--data={self.data}", f"--metrics={','.join(names)}",
                f"--outdir={folder}", f"--cache={self.work / 'cache'}", "--verbose=0",
            )  # fmt: skip

        def collect(outcome: Outcome) -> dict[str, Any]:
            return results.read_proxies(folder)

        return Part("proxies", "Proxy distances", Need(30, 90), command, collect)
