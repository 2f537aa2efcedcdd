"""Finding compilers, building once, and plain PyTorch with one line of explanation where that is impossible."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from scripts import run

from torch_utils import distributed
from torch_utils.distributed import PeerError
from torch_utils.ops import kernels, native
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.kernels import find_kernel
from torch_utils.ops.native import __main__ as command
from torch_utils.ops.native import build, library, loading, selftest, toolchain
from torch_utils.ops.native.toolchain import OperatorsUnavailable
from training import launch
from training.config import RunConfig

ROOT = Path(__file__).parents[2]
CPU = build.Target()
CPU_DEVICE = torch.device("cpu")
GPU_LIST = "7.5,8.0,8.6,9.0,12.0"
KERNELS = 55  # of the library
CALLS = 3  # of the compiler for one library


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, no mode chosen, nothing loaded and nothing known to fail."""
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", str(tmp_path / "a cache"))
    monkeypatch.delenv("STYLEFORMER_OPS", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(library, "loaded", {})
    monkeypatch.setattr(kernels, "_table", {})
    native._is_usable.cache_clear()
    yield tmp_path / "a cache"
    native._is_usable.cache_clear()


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
    native.prepare(torch.device("cuda"))  # which prints and tries nothing again
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
    assert "their check failed (exit code 1: " in capsys.readouterr().out
    assert find_kernel("bias_act", torch.ones(1)) is None


@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ('echo "Error: in $STYLEFORMER_CACHE_DIR" >&2; echo Compile with >&2; exit 1', "(exit code 1: Error: in {})"),
        ("kill -9 $$", "failed (exit code -9: no message)"),
        (None, "did not end (FileNotFoundError)"),
    ],
)  # fmt: skip
def test_why_a_check_failed_is_named_with_a_remedy(python, reason, cache, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STYLEFORMER_CACHE_DIR", "relative")  # the check runs in another folder
    path = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(script(path, python) if python else path))
    with pytest.raises(OperatorsUnavailable) as raised:
        loading.check_once("cpu")
    assert reason.format(tmp_path / "relative") in str(raised.value)
    assert f"delete {tmp_path / 'relative' / 'ops' / CPU.name} to build again" in str(raised.value)


@pytest.mark.parametrize(
    ("processes", "expected"), [(None, {"T4": 0, "L4": 2, "A100": 3}), (1, {"T4": 0}), (3, {"T4": 0, "L4": 2})]
)
def test_one_gpu_of_each_kind_that_the_run_uses_is_checked(processes, expected, monkeypatch) -> None:
    names, checked = ("T4", "T4", "L4", "A100"), []
    if processes:
        monkeypatch.setenv(distributed.SPAWNED, "1")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(loading, "present_gpus", lambda: dict.fromkeys(range(4), 75))
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    monkeypatch.setattr(command, "enable", lambda *_: None)
    monkeypatch.setattr(command, "compare", checked.append)
    command.check("cuda")
    assert loading.gpus_to_check() == expected
    assert sorted(device.index for device in checked) == sorted(expected.values())


def fake_nvcc(folder: Path, version: str, architectures: str, trial: str = ":") -> Path:
    codes = "\n".join(f"sm_{a}" for a in architectures.split())
    text = f'case "$1" in --version) echo "release {version}, V1";; --list-gpu-code) echo "{codes}";; *) {trial};; esac'
    return script(folder / "bin" / "nvcc", text)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Where nvcc is looked for. There is a C++ compiler, and PyTorch is built with CUDA 12.8."""
    places: list[tuple[str, Path]] = []
    monkeypatch.setenv("CXX", "sh")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(toolchain, "nvcc_places", lambda: iter(places))
    return places


def test_which_nvcc_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "sh")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(toolchain.site, "getsitepackages", lambda: [str(tmp_path / "site")])
    monkeypatch.delenv("CUDA_PATH", raising=False)
    old = fake_nvcc(tmp_path / "old", "11.5", "75 80 86")
    new = fake_nvcc(tmp_path / "new", "14.0", "75 80 86 90 120")
    conda = fake_nvcc(tmp_path / "conda", "12.4", "75 80 86 89 90")
    pip = fake_nvcc(tmp_path / "site" / "nvidia" / "cu13", "13.0", "75 80 86 89 90 120")
    monkeypatch.setenv("CUDA_HOME", str(old.parents[1]))
    monkeypatch.setenv("CONDA_PREFIX", str(conda.parents[1]))
    monkeypatch.setenv("PATH", f"{new.parent}{os.pathsep}{os.environ['PATH']}")
    assert toolchain.find_nvcc([80]).path == old  # what the user names comes first, if it can do it
    assert toolchain.find_nvcc([90]).path == conda
    assert toolchain.find_nvcc([90, 120]).path == pip
    assert toolchain.find_nvcc([121]).path == pip  # runs the code of 12.0


def test_an_nvcc_that_cannot_link_is_passed_over(places: list[tuple[str, Path]], tmp_path: Path) -> None:
    trial = 'case "$*" in *-cubin*);; *-shared*) exit 1;; esac'
    complete = fake_nvcc(tmp_path / "complete", "12.8", "90")
    places += [("conda", fake_nvcc(tmp_path / "half", "12.8", "90", trial)), ("PATH", complete)]
    assert toolchain.find_nvcc([90]).path == complete


def test_an_nvcc_found_twice_is_tried_once(places: list[tuple[str, Path]], tmp_path: Path) -> None:
    trials = tmp_path / "trials"
    broken = fake_nvcc(tmp_path / "cuda-12.8", "12.8", "90", f"echo trial >> {trials}; exit 1")
    (tmp_path / "cuda").symlink_to(tmp_path / "cuda-12.8")
    (tmp_path / "nvcc").symlink_to(broken)  # a link to the file itself does not find the parts beside it
    places += [("PATH", tmp_path / "nvcc"), ("PATH", broken), ("default folder", tmp_path / "cuda" / "bin" / "nvcc")]
    with pytest.raises(OperatorsUnavailable, match=r"bin/nvcc does not compile"):
        toolchain.find_nvcc([90])
    assert trials.read_text().count("trial") == 2


def test_without_a_host_compiler_no_nvcc_helps(places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places.append(("PATH", fake_nvcc(tmp_path, "12.8", "90")))
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperatorsUnavailable, match=r"install g\+\+"):
        toolchain.find_nvcc([90])


@pytest.mark.parametrize(
    ("toolkit", "remedy"), [("12.6.3", "`conda install .* cuda-nvcc=12.8 "), ("13.0.2", "`pip install .*==13.0.2")]
)
@pytest.mark.usefixtures("places")
def test_packages_that_contain_nvcc_are_advised(toolkit: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.importlib.metadata, "version", lambda name: toolkit)
    with pytest.raises(OperatorsUnavailable, match=remedy) as raised:
        toolchain.find_nvcc([90])
    assert ("pip install" in str(raised.value)) == (toolkit > "13")


def test_a_c_library_newer_than_cuda_needs_a_newer_cuda(places: list[tuple[str, Path]], tmp_path: Path) -> None:
    trial = "echo 'mathcalls.h(206): error: exception specification is incompatible' >&2; exit 1"
    places.append(("PATH", fake_nvcc(tmp_path, "12.8", "90", trial)))
    with pytest.raises(OperatorsUnavailable, match=r"library is newer than CUDA 12.8: install CUDA 13.2 or") as raised:
        toolchain.find_nvcc([90])
    assert "CUDA 12.8 toolkit" not in str(raised.value) and "pip install" not in str(raised.value)


def test_what_each_nvcc_lacks_is_named(places: list[tuple[str, Path]], tmp_path: Path) -> None:
    broken = script(tmp_path / "bin" / "nvcc", "exit 1")
    old, new = fake_nvcc(tmp_path / "old", "11.5", "75 80"), fake_nvcc(tmp_path / "new", "13.0", "75 80 90")
    trial = 'echo "ptxas fatal : Unsupported .version" >&2; exit 1'
    mixed = fake_nvcc(tmp_path / "mixed", "11.0", "90", trial)
    places += [("$CUDA_HOME", tmp_path / "nowhere"), ("PATH", broken), ("conda", mixed), ("PATH", old), ("PATH", new)]
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
    native.enable = lambda *_: log.with_suffix(".enabled").touch()  # type: ignore[assignment]

    def fail(device_type: str) -> None:
        log.touch()
        raise OperatorsUnavailable("bias_act differs from the reference")

    def succeed(device_type: str) -> None:
        pass

    def is_enabled(load: Callable[[str], None], check: Callable[[str], None]) -> bool:
        native.load_library, native.check_once = load, check
        native._is_usable.cache_clear()
        native.prepare(torch.device("cuda"), "auto")
        return log.with_suffix(".enabled").exists()

    assert not is_enabled(succeed, fail)
    assert log.exists() == (distributed.rank() == 0)
    assert not is_enabled(fail if distributed.rank() == 1 else succeed, succeed)
    assert is_enabled(succeed, succeed)
    native.load_library = fail
    with pytest.raises((OperatorsUnavailable, PeerError), match="bias_act differs") as raised:
        native.prepare(torch.device("cuda"), "native")
    log.with_suffix(f".{raised.type.__name__}").touch()
    distributed.shutdown()


def test_the_first_process_of_a_machine_builds_and_checks_for_the_others(tmp_path: Path) -> None:
    distributed.spawn(prepare_by_two, 2, tmp_path)
    names = {"0", "1", "0.enabled", "1.enabled", "0.OperatorsUnavailable", "1.PeerError"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_build_ends_before_the_other_processes_stop_waiting() -> None:
    places = 6  # CUDA_HOME, CUDA_PATH, conda, PATH, pip and the default folder
    finding = places * (2 * toolchain.QUERY_TIMEOUT_SEC + toolchain.TRIAL_TIMEOUT_SEC)
    building = build.COMPILE_TIMEOUT_SEC + build.LINK_TIMEOUT_SEC
    assert distributed.TIMEOUT.total_seconds() > finding + building + loading.CHECK_TIMEOUT_SEC


def test_train_py_says_in_one_line_what_native_lacks(cache: Path, digits: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    options = ["--cfg=demo", f"--data={digits}", f"--outdir={tmp_path}", "--metrics=none", "--ops=native"]
    out = run("train", *options, ok=False)
    assert out == "Error: there is no C++ compiler: install g++, or name one in $CXX\n"


@pytest.mark.parametrize(("local_rank", "expected"), [(None, ["build"]), ("0", ["build", "search"]), ("1", ["search"])])
def test_before_the_batch_search_one_process_builds_and_a_single_one_fails_at_once(
    local_rank, expected, tmp_path, monkeypatch
) -> None:
    calls = []

    def fail(what: str) -> None:
        calls.append(what)
        raise OperatorsUnavailable(f"the {what} fails")

    if local_rank is not None:
        monkeypatch.setenv(distributed.SPAWNED, "1")
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr(distributed, "local_device", lambda: CPU_DEVICE)
    for name in ("keep_freed_memory", "set_arithmetic"):
        monkeypatch.setattr(launch, name, lambda *_: None)
    monkeypatch.setattr(native, "prepare", lambda *_: fail("build"))
    monkeypatch.setattr(launch, "search_batch_gpu", lambda *_: fail("search"))
    benchmark = torch.backends.cudnn.benchmark
    job = launch.Job(RunConfig(), tmp_path, None, False, None, "native", benchmark, gpus=2, is_searching=True)
    with pytest.raises(OperatorsUnavailable, match=f"the {expected[-1]} fails"):
        launch.train(job, dataset=object())  # type: ignore[arg-type]
    assert calls == expected


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
