"""Finding compilers, building once, and plain PyTorch with one line of explanation where that is impossible."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from torch_utils import distributed
from torch_utils.distributed import PeerError
from torch_utils.ops import kernels, native
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.kernels import find_kernel
from torch_utils.ops.native import build, library, loading, selftest, toolchain
from torch_utils.ops.native.toolchain import OperatorsUnavailable

ROOT = Path(__file__).parents[2]
CPU = build.Target()
CPU_DEVICE = torch.device("cpu")
GPU_LIST = "7.5,8.0,8.6,9.0,12.0"
KERNELS = 55  # of the library
CALLS = 3  # of the compiler for one library


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, no mode chosen and nothing loaded."""
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "a cache"))
    monkeypatch.delenv("STYLEFORMER_OPS", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(library, "loaded", {})
    monkeypatch.setattr(kernels, "_table", {})
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


def count_calls(quick_compiler: Path) -> int:
    return quick_compiler.read_text().count("call") if quick_compiler.exists() else 0


def test_modes(quick_compiler: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 2)
    for mode in (None, "auto", "reference"):
        native.prepare(CPU_DEVICE, mode)
        assert find_kernel("bias_act", x) is None
    assert count_calls(quick_compiler) == 0
    monkeypatch.setenv("STYLEFORMER_OPS", "native")
    native.prepare(CPU_DEVICE, "reference")  # an option comes before the environment
    assert find_kernel("bias_act", x) is None
    native.prepare(CPU_DEVICE)
    assert find_kernel("bias_act", x) and find_kernel("upfirdn2d", x) and not find_kernel("bias_act", x.int())
    assert count_calls(quick_compiler) == CALLS
    monkeypatch.setenv("STYLEFORMER_OPS", "fast")
    with pytest.raises(ValueError, match=r"STYLEFORMER_OPS.* must be one of auto, native, reference; got 'fast'"):
        native.prepare(CPU_DEVICE)


@pytest.mark.parametrize(("mode", "expected"), [("auto", [False, True]), ("native", [True, True])])
def test_inside_compiled_code_auto_leaves_bias_act_to_inductor(mode, expected, quick_compiler, monkeypatch) -> None:
    native.enable("cpu", mode)
    operators, x = ("bias_act", "upfirdn2d"), torch.ones(1)
    assert all(find_kernel(name, x) for name in operators)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert [find_kernel(name, x) is not None for name in operators] == expected


def prepare_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `prepare` in mode auto as on a machine with a GPU, with the library for the CPU."""
    load, check = native.load_library, native.check_once
    monkeypatch.setattr(native, "load_library", lambda device_type: load("cpu"))
    monkeypatch.setattr(native, "check_once", lambda device_type: check("cpu"))
    native.prepare(torch.device("cuda"))


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        (None, "no C++ compiler: install g++, or name one in $CXX"),
        ("echo 'broken++: internal error: out of luck' >&2; exit 3", "compiling failed (broken++: internal error: out of luck)"),
    ],
)  # fmt: skip
def test_no_working_compiler_costs_one_line(compiler, message, cache, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if compiler else str(tmp_path))
    if compiler:
        monkeypatch.setenv("CXX", str(script(tmp_path / "broken++", compiler)))
    prepare_as_on_a_gpu(monkeypatch)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and "plain PyTorch" in out and message in out
    assert bias_act(torch.ones(2, 2), act="relu", gain=2).tolist() == [[2, 2], [2, 2]]
    if compiler:
        assert f"see {build.log_path(CPU)}" in out and "out of luck" in build.log_path(CPU).read_text(encoding="utf-8")
        assert sorted(path.suffix for path in (cache / "ops").iterdir()) == [".lock", ".log"]  # nothing half-built
    with pytest.raises(OperatorsUnavailable, match=r"compiler|compiling"):
        native.prepare(CPU_DEVICE, "native")


def test_a_library_that_does_not_load_or_a_cache_that_cannot_be_written_is_named(cache: Path, monkeypatch) -> None:
    path = build.library_path(CPU)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no library")
    with pytest.raises(OperatorsUnavailable, match=r"cannot be loaded .*: delete its folder"):
        native.prepare(CPU_DEVICE, "native")
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(path / "cache"))
    with pytest.raises(OperatorsUnavailable, match=r"cannot be written.*set STYLEFORMER_CACHE_DIR"):
        native.prepare(CPU_DEVICE, "native")


def test_a_failed_check_is_a_reason_for_plain_pytorch(quick_compiler: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(loading, "_ROOT", Path("/"))  # where the check finds no program to run
    prepare_as_on_a_gpu(monkeypatch)
    assert "their check failed (" in capsys.readouterr().out
    assert find_kernel("bias_act", torch.ones(1)) is None


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


def test_what_each_nvcc_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    broken = script(tmp_path / "bin" / "nvcc", "exit 1")
    old, new = fake_nvcc(tmp_path / "old", "11.5", "75 80"), fake_nvcc(tmp_path / "new", "13.0", "75 80 90")
    mixed = script(
        tmp_path / "mixed" / "bin" / "nvcc",
        'case "$1" in --version) echo "release 11.0, V1";; --list-gpu-code) echo sm_90;; '
        '*) echo "ptxas fatal : Unsupported .version" >&2; exit 1;; esac',
    )
    places = [("$CUDA_HOME", tmp_path / "nowhere"), ("PATH", broken), ("conda", mixed), ("PATH", old), ("PATH", new)]
    monkeypatch.setattr(toolchain, "nvcc_places", lambda: iter(places))
    with pytest.raises(OperatorsUnavailable) as raised:
        toolchain.find_nvcc([90])
    message = str(raised.value)
    assert "$CUDA_HOME has no bin/nvcc" in message and f"{broken} does not work" in message
    assert f"{mixed} does not compile (ptxas fatal : Unsupported .version)" in message
    assert f"{old} of CUDA 11.5 does not know GPUs of 9.0" in message
    assert f"{new} of CUDA 13.0 is newer than PyTorch's 12.8" in message
    assert message.endswith("set CUDA_HOME to its folder")


def prepare_by_two(folder: Path) -> None:
    distributed.init(CPU_DEVICE)
    log = folder / str(distributed.rank())
    native.load_library = native.enable = lambda *_: None  # type: ignore[assignment]

    def fail(device_type: str) -> None:
        log.write_text("checked")
        raise OperatorsUnavailable("bias_act differs from the reference")

    native.check_once = fail
    native.enable = lambda *_: log.with_suffix(".enabled").touch()  # type: ignore[assignment]
    native.prepare(torch.device("cuda"), "auto")
    assert not log.with_suffix(".enabled").exists()
    native.check_once = lambda device_type: None
    native.prepare(torch.device("cuda"), "auto")
    native.load_library = fail
    with pytest.raises((OperatorsUnavailable, PeerError), match="bias_act differs") as raised:
        native.prepare(torch.device("cuda"), "native")
    log.with_suffix(f".{raised.type.__name__}").touch()
    distributed.shutdown()


def test_the_first_process_of_a_machine_builds_and_checks_for_the_others(tmp_path: Path) -> None:
    distributed.spawn(prepare_by_two, 2, tmp_path)
    names = {"0", "0.enabled", "1.enabled", "0.OperatorsUnavailable", "1.PeerError"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_build_ends_before_the_other_processes_stop_waiting() -> None:
    assert distributed.TIMEOUT.total_seconds() > build.TIMEOUT_SEC + loading.CHECK_TIMEOUT_SEC


def test_a_library_is_built_once_and_named_by_all_it_depends_on(quick_compiler: Path, monkeypatch) -> None:
    path = build.build(CPU)
    assert build.build(CPU) == path and path.exists()
    assert count_calls(quick_compiler) == CALLS
    names = {build.Target(architectures).name for architectures in ((), (90,), (80, 90))}
    monkeypatch.setattr(torch.version, "cuda", "99.9")
    names.add(build.Target((90,)).name)
    monkeypatch.setattr(build, "_sources_hash", lambda: "other")
    assert len(names | {CPU.name}) == 5


def build_in_another_process(**environment: str) -> subprocess.Popen:
    code = "from torch_utils.ops.native import build; print(build.build(build.Target()))"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_build_does_not_disturb_the_next(quick_compiler: Path, cache: Path) -> None:
    process = build_in_another_process(PAUSE="3")
    while not quick_compiler.exists():
        assert process.poll() is None
        time.sleep(0.05)
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
    assert count_calls(quick_compiler) == CALLS


@pytest.mark.usefixtures("compiled")
def test_the_self_test_runs_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = library.library_of(CPU_DEVICE).launches
    assert len(launches()) == KERNELS
    assert selftest.compare(CPU_DEVICE) > 1000
    assert all(launches().values())
    monkeypatch.setattr(selftest, "_GEOMETRIES", selftest._GEOMETRIES[:3])
    with pytest.raises(OperatorsUnavailable, match=r"did not launch 13 kernels, .*Upfirdn"):
        selftest.compare(CPU_DEVICE)


@pytest.mark.slow
def test_the_command_builds_and_checks_and_a_check_runs_once(cache: Path, monkeypatch) -> None:
    """With the real compiler."""
    words = [sys.executable, "-m", "torch_utils.ops.native"]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    assert done.returncode == 0, done.stderr
    assert "results agree with the reference on cpu" in done.stdout
    assert all(f"{word}:" in done.stdout for word in ("compiler", "cache", "built", "build log", "self-test"))
    loading.check_once("cpu")
    assert len(list(build.library_path(CPU).parent.glob("checked-*"))) == 1
    monkeypatch.setattr(subprocess, "run", None)
    loading.check_once("cpu")


@pytest.mark.slow
def test_nvcc_compiles_for_all_gpus_without_warnings_and_spills(tmp_path: Path, monkeypatch) -> None:
    architectures = toolchain.parse_architectures(GPU_LIST)
    try:
        toolchain.find_nvcc(architectures)
    except OperatorsUnavailable as error:
        pytest.skip(str(error))
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path))
    words = [sys.executable, "-m", "torch_utils.ops.native", "--compile-only", f"--arch={GPU_LIST}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = build.log_path(build.Target(tuple(architectures))).read_text(encoding="utf-8")
    assert all(f"'sm_{a}'" in log for a in architectures)
    assert not re.search("warning", log, re.IGNORECASE)
    assert not [line for line in log.splitlines() if "spill" in line and " 0 bytes spill stores, 0 bytes" not in line]
    registers = [int(number) for number in re.findall(r"Used (\d+) registers", log)]
    assert len(registers) == KERNELS * len(architectures)
    assert max(registers) <= 64
