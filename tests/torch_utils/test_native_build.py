"""Finding compilers, building once, and stepping aside with one line where that cannot be done."""

import ast
import datetime
import graphlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from torch_utils import distributed
from torch_utils.ops import native
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.native import build, library, loading, selftest, toolchain
from torch_utils.ops.native.__main__ import main as doctor
from torch_utils.ops.native.toolchain import OperatorsUnavailable

ROOT = Path(__file__).parents[2]
CPU = build.Target()
GPU_LIST = "7.5,8.0,8.6,9.0,12.0"
KERNELS = 91  # of the library


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, no mode chosen and nothing loaded."""
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "a cache"))
    monkeypatch.delenv("STYLEFORMER_OPS", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native, "_chosen", None)
    monkeypatch.setattr(native, "_ready", {})
    monkeypatch.setattr(library, "_loaded", {})
    return tmp_path / "a cache"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def quick_compiler(cpu_library: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that waits and then hands out the library built before; returns the file it counts its calls in."""
    calls = tmp_path / "calls"
    text = f'echo call >> "{calls}"; sleep ${{PAUSE:-0}}; for word; do out=$word; done; cp "{cpu_library}" "$out"'
    monkeypatch.setenv("CXX", str(script(tmp_path / "my tools" / "quick++", text)))
    return calls


def test_training_on_the_cpu_neither_builds_nor_imports_anything() -> None:
    code = (
        "import sys, torch; from torch_utils.ops.bias_act import bias_act; from torch_utils.ops.upfirdn2d import *;"
        "bias_act(torch.ones(2, 2), act='lrelu'); upfirdn2d(torch.ones(1, 1, 4, 4), setup_filter([1, 3, 3, 1]));"
        "print(*(name for name in sys.modules if name.startswith('torch_utils.ops.native.')))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "STYLEFORMER_OPS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_modes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.mode() == "auto"
    monkeypatch.setenv("STYLEFORMER_OPS", "reference")
    assert native.mode() == "reference"
    native.set_mode("native")
    assert native.mode() == "native"
    with pytest.raises(ValueError, match="must be one of auto, native, reference; got 'fast'"):
        native.set_mode("fast")
    monkeypatch.setattr(native, "_chosen", None)
    monkeypatch.setenv("STYLEFORMER_OPS", "cuda")
    with pytest.raises(ValueError, match="STYLEFORMER_OPS must be one of"):
        native.mode()


def test_no_compiler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not native.is_ready("cpu")
    assert not native.is_ready("cpu")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "plain PyTorch" in out and "no C++ compiler: install g++, or name one in $CXX" in out
    native.set_mode("native")
    with pytest.raises(OperatorsUnavailable, match="no C"):
        bias_act(torch.ones(2, 2), act="lrelu")
    native.set_mode("reference")
    assert bias_act(torch.ones(2, 2), act="relu", gain=2).tolist() == [[2, 2], [2, 2]]


def test_broken_compiler(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv(
        "CXX", str(script(tmp_path / "broken++", "echo 'broken++: internal error: out of luck' >&2; exit 3"))
    )
    assert not native.is_ready("cpu")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "compiling failed (broken++: internal error: out of luck)" in out
    assert f"see {build.log_path(CPU)}" in out
    assert "out of luck" in build.log_path(CPU).read_text(encoding="utf-8")
    assert sorted(path.suffix for path in (cache / "ops").iterdir()) == [".lock", ".log"]  # nothing half-built


def test_cache_that_cannot_be_written(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert not native.is_ready("cpu")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "cannot be written" in out and "set STYLEFORMER_CACHE_DIR to a folder of yours" in out


def test_no_gpu_is_one_of_the_reasons(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not native.is_ready("cuda")
    assert "PyTorch sees no GPU" in capsys.readouterr().out


def fake_nvcc(folder: Path, version: str, architectures: str) -> Path:
    codes = "\n".join(f"sm_{a}" for a in architectures.split())
    text = f'case "$1" in --version) echo "Cuda compilation tools, release {version}, V1";; *) echo "{codes}";; esac'
    return script(folder / "bin" / "nvcc", text)


def test_which_nvcc_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(toolchain.site, "getsitepackages", lambda: [str(tmp_path / "site")])
    monkeypatch.delenv("CUDA_PATH", raising=False)
    old = fake_nvcc(tmp_path / "old", "11.5", "75 80 86")
    new = fake_nvcc(tmp_path / "new", "13.0", "75 80 86 90 120")
    conda = fake_nvcc(tmp_path / "conda", "12.4", "75 80 86 89 90")
    pip = fake_nvcc(tmp_path / "site" / "nvidia" / "cuda_nvcc", "12.8", "75 80 86 89 90 120")
    monkeypatch.setenv("CUDA_HOME", str(old.parents[1]))
    monkeypatch.setenv("CONDA_PREFIX", str(conda.parents[1]))
    monkeypatch.setenv("PATH", f"{new.parent}{os.pathsep}{os.environ['PATH']}")
    assert toolchain.find_nvcc([80]).path == old  # what the user names comes first, if it can do it
    assert toolchain.find_nvcc([90]).path == conda
    assert toolchain.find_nvcc([90, 120]).path == pip
    assert toolchain.find_nvcc([121]).path == pip  # runs the code of 12.0
    monkeypatch.setattr(toolchain, "nvcc_places", lambda: iter([("$CUDA_HOME", old), ("PATH", new)]))
    with pytest.raises(OperatorsUnavailable) as raised:
        toolchain.find_nvcc([90])
    message = str(raised.value)
    assert f"{old} of CUDA 11.5 does not know GPUs of 9.0" in message
    assert f"{new} is of CUDA 13.0, newer than PyTorch's 12.8" in message
    assert message.endswith("install the CUDA 12.8 toolkit and set CUDA_HOME to its folder")
    monkeypatch.setattr(toolchain.importlib.metadata, "version", lambda name: "12.8.1")
    with pytest.raises(
        OperatorsUnavailable, match=r"`pip install 'cuda-toolkit\[nvcc,nvvm,crt\]==12.8.1'`, or install"
    ):
        toolchain.find_nvcc([90])


def test_an_nvcc_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = script(tmp_path / "bin" / "nvcc", "exit 1")
    good = fake_nvcc(tmp_path / "good", "11.0", "75")
    mixed = script(
        tmp_path / "mixed" / "bin" / "nvcc",
        'case "$1" in --version) echo "release 11.0, V1";; --list-gpu-code) echo sm_75;; '
        '*) echo "ptxas fatal : Unsupported .version" >&2; exit 1;; esac',
    )
    places = [("$CUDA_HOME", tmp_path / "nowhere"), ("PATH", broken), ("conda", mixed), ("default folder", good)]
    monkeypatch.setattr(toolchain, "nvcc_places", lambda: iter(places))
    assert toolchain.find_nvcc([75]).path == good
    places.pop()
    with pytest.raises(OperatorsUnavailable) as raised:
        toolchain.find_nvcc([75])
    assert "$CUDA_HOME has no bin/nvcc" in str(raised.value)
    assert f"{broken} does not work" in str(raised.value)
    assert f"{mixed} does not compile (ptxas fatal : Unsupported .version)" in str(raised.value)
    places.clear()
    with pytest.raises(OperatorsUnavailable, match="there is no nvcc: "):
        toolchain.find_nvcc([75])


def test_architectures() -> None:
    assert toolchain.parse_architectures("9.0, 7.5,12.0") == [75, 90, 120]
    for text in ("90", "9.0;7.5", "", "sm_90"):
        with pytest.raises(ValueError, match="no compute capability"):
            toolchain.parse_architectures(text)


def test_gpus_that_pytorch_has_no_code_for_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(6, 1), (8, 6), (8, 9), (12, 1), (13, 0)]
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_86", "sm_120", "compute_120"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: found[index])
    assert toolchain.present_gpus() == {1: 86, 2: 89, 3: 121, 4: 130}
    assert toolchain.present_architectures() == [86, 89, 121, 130]
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_100"])
    assert toolchain.present_gpus() == {}
    with pytest.raises(OperatorsUnavailable, match="no code for the GPUs here"):
        loading.target_for("cuda")


@pytest.mark.parametrize("mode", ["auto", "native", "reference"])
def test_what_is_used_depends_on_no_measurement(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In auto both, but for what torch.compile fuses itself; whether they are built is not even asked then."""
    asked = []
    monkeypatch.setattr(native, "_prepared", lambda device_type, is_checked: asked.append(device_type) is None)
    monkeypatch.setattr(native, "_ready", {})
    monkeypatch.setattr(native, "_chosen", mode)
    x = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda"))
    is_on = mode != "reference"
    with monkeypatch.context() as compiling:
        compiling.setattr(torch.compiler, "is_compiling", lambda: True)
        assert native.should_use_native(x, "bias_act") == (mode == "native")
        assert asked == (["cuda"] if mode == "native" else [])
        assert native.should_use_native(x, "upfirdn2d") == is_on
    assert [native.should_use_native(x, name) for name in ("bias_act", "upfirdn2d")] == [is_on, is_on]
    assert asked == ["cuda"] * is_on


def test_a_library_that_disagrees_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(loading, "load", lambda device_type: None)

    def fail(device_type: str) -> None:
        raise OperatorsUnavailable("bias_act linear differs from the reference by 2")

    monkeypatch.setattr(loading, "check_once", fail)
    assert not native.is_ready("cuda")
    assert "plain PyTorch" in capsys.readouterr().out


def test_no_module_of_the_operators_imports_in_a_circle() -> None:
    """Where a module of a package is named, the package itself is not taken for imported."""
    paths = [ROOT / "torch_utils" / "distributed.py", *(ROOT / "torch_utils" / "ops").rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    imported: dict[str, set[str]] = {}
    for name, path in names.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {one if one in names else str(node.module) for one in whole}
        imported[name] = found & names.keys()
    assert imported["torch_utils.ops.bias_act"] >= {"torch_utils.ops.native", "torch_utils.ops.bias_act_reference"}
    assert set(graphlib.TopologicalSorter(imported).static_order()) == names.keys()  # CycleError names a circle


def prepare_by_two(folder: Path) -> None:
    distributed.init(torch.device("cpu"))
    native.set_mode("auto")
    asked = folder / str(distributed.rank())
    native._prepared = lambda device_type, is_checked: asked.write_text("asked") < 0  # fails
    native.prepare(torch.device("cuda"))
    assert not native.is_ready("cuda")
    native.set_mode("auto")

    def succeed(device_type: str, is_checked: bool) -> bool:
        asked.with_suffix(".loaded" if is_checked else ".checked").touch()
        return True

    native._prepared = succeed
    native.prepare(torch.device("cuda"))
    assert native.is_ready("cuda")
    distributed.shutdown()


def test_the_first_process_of_a_machine_finds_out_for_the_others(tmp_path: Path) -> None:
    distributed.spawn(prepare_by_two, 2, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "0.checked", "1.loaded"}


def prepare_slowly(folder: Path) -> None:
    """The first process builds for longer than a collective may wait; then it fails, which reaches the other."""
    distributed.TIMEOUT, distributed.SIGN_OF_LIFE_SEC = datetime.timedelta(seconds=4), 0.5
    distributed.init(torch.device("cpu"))
    native.set_mode("native")

    def build_for_long(device_type: str, is_checked: bool) -> bool:
        if not is_checked:
            time.sleep(8)
        return True

    native._prepared = build_for_long
    native.prepare(torch.device("cpu"))
    assert native.is_ready("cpu")

    def fail(device_type: str, is_checked: bool) -> bool:
        raise OperatorsUnavailable("compiling failed")

    native.set_mode("native")
    native._prepared = fail
    with pytest.raises((OperatorsUnavailable, distributed.PeerError), match="compiling failed") as raised:
        native.prepare(torch.device("cpu"))
    (folder / str(distributed.rank())).write_text(raised.type.__name__)
    distributed.shutdown()


def test_a_build_may_take_longer_than_a_collective_waits(tmp_path: Path) -> None:
    distributed.spawn(prepare_slowly, 2, tmp_path)
    assert [(tmp_path / name).read_text() for name in "01"] == ["OperatorsUnavailable", "PeerError"]


def test_a_build_before_the_processes_join_ends_before_the_others_give_up() -> None:
    """--batch-gpu=auto tries batch sizes in the first process while the others wait to join it."""
    assert distributed.TIMEOUT.total_seconds() > build.TIMEOUT_SEC + loading.CHECK_TIMEOUT_SEC


def test_a_library_is_built_once_and_named_by_all_it_depends_on(quick_compiler: Path, monkeypatch) -> None:
    path = build.build(CPU)
    assert path.exists() and quick_compiler.read_text().count("call") == 3
    assert build.build(CPU) == path and quick_compiler.read_text().count("call") == 3
    names = {build.Target(architectures).name for architectures in ((), (90,), (80, 90))}
    monkeypatch.setattr(torch.version, "cuda", "99.9")
    names.add(build.Target((90,)).name)
    monkeypatch.setattr(build, "_sources_hash", lambda: "other")
    assert len(names | {CPU.name}) == 5


def test_a_library_that_does_not_load_is_built_again(quick_compiler: Path) -> None:
    path = build.library_path(CPU)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no library")
    native.require("cpu")
    assert quick_compiler.read_text().count("call") == 3


def build_in_another_process(**environment: str) -> subprocess.Popen:
    code = "from torch_utils.ops.native import build; print(build.build(build.Target()))"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )


def wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise TimeoutError(path)


def test_a_killed_build_is_no_obstacle(quick_compiler: Path, cache: Path) -> None:
    process = build_in_another_process(PAUSE="3")
    wait_for(quick_compiler)
    time.sleep(1.2)  # older files are known to be left behind
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list((cache / "ops").glob(".*.tmp"))
    assert build.build(CPU).exists()
    assert not list((cache / "ops").glob(".*.tmp"))


def test_two_processes_build_once(quick_compiler: Path) -> None:
    processes = [build_in_another_process(PAUSE="1") for _ in range(2)]
    paths = {process.communicate()[0].strip() for process in processes}
    assert paths == {str(build.library_path(CPU))}
    assert quick_compiler.read_text().count("call") == 3


def test_a_failed_check_is_a_reason_to_step_aside(quick_compiler: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(loading, "_ROOT", Path("/"))  # where the check finds no program to run
    assert not native.is_ready("cpu")
    assert "their check failed (" in capsys.readouterr().out


@pytest.mark.usefixtures("compiled")
def test_the_self_test_runs_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = library.library_of(torch.device("cpu"))
    assert len(kernels.launches()) == KERNELS
    assert selftest.compare(torch.device("cpu")) > 1000
    assert all(kernels.launches().values())
    monkeypatch.setattr(selftest, "_GEOMETRIES", selftest._GEOMETRIES[:3])
    with pytest.raises(OperatorsUnavailable, match=r"has not run 13 kernels, .*Upfirdn"):
        selftest.compare(torch.device("cpu"))


def test_prepare_in_a_run_of_one(quick_compiler: Path) -> None:
    native.prepare(torch.device("cpu"))
    assert not quick_compiler.exists()
    native.set_mode("native")
    native.prepare(torch.device("cpu"))
    assert quick_compiler.read_text().count("call") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compile-only", "--arch=90"], "'90' is no compute capability of a GPU"),
        (["--arch=9.0"], "--arch goes with --compile-only"),
    ],
)
def test_doctor_refuses(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(doctor, arguments)
    assert done.exit_code and message in done.output


@pytest.mark.slow
def test_doctor_from_an_empty_cache_after_a_killed_compiler(cache: Path) -> None:
    """With the real compiler."""
    process = build_in_another_process()
    wait_for(cache / "ops" / f"{CPU.name}.log")
    time.sleep(2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    command = [sys.executable, "-m", "torch_utils.ops.native"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 0, done.stderr
    assert "results agree with the reference on cpu" in done.stdout
    assert all(f"{word}:" in done.stdout for word in ("compiler", "cache", "built", "build log", "self-test"))


@pytest.mark.slow
def test_the_check_of_a_fresh_library_runs_once(quick_compiler: Path, monkeypatch) -> None:
    assert native.is_ready("cpu")
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setattr(native, "_ready", {})
    assert native.is_ready("cpu")
    assert len(list(build.library_path(CPU).parent.glob("checked-*"))) == 1


@pytest.mark.slow
def test_nvcc_compiles_for_all_gpus_without_warnings_and_spills(tmp_path: Path, monkeypatch) -> None:
    architectures = toolchain.parse_architectures(GPU_LIST)
    try:
        toolchain.find_nvcc(architectures)
    except OperatorsUnavailable as error:
        pytest.skip(str(error))
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path))
    command = [sys.executable, "-m", "torch_utils.ops.native", "--compile-only", f"--arch={GPU_LIST}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = build.log_path(build.Target(tuple(architectures))).read_text(encoding="utf-8")
    assert all(f"'sm_{a}'" in log for a in architectures)
    assert not re.search("warning", log, re.IGNORECASE)
    assert not [line for line in log.splitlines() if "spill" in line and " 0 bytes spill stores, 0 bytes" not in line]
    registers = [int(number) for number in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == KERNELS * len(architectures)
    assert max(registers) <= 64
