"""The layers of docs/architecture.md: each imports only itself and what is to its left; no function outgrows a screen."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["dnnlib", "torch_utils", "metrics", "training", "sampling"]
SCRIPTS = ["train", "generate", "calc_metrics", "dataset_tool"]
SOURCES = [path for name in LAYERS for path in sorted((ROOT / name).rglob("*.py"))]

# inside training: a module may not import those to the right of it
ORDER = [
    "training.registry", "training.config", "training.presets", "training.networks", "training.state", "training.phases",
    "training.losses", "training.loop", "training.supervisor",
]  # fmt: skip
INDEPENDENT = ["training.losses.functions", "training.ema", "training.augment.ada"]  # import only each other


def imports(path: Path) -> set[str]:
    """The modules that a file imports anywhere, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_no_import_runs_upward(path: Path) -> None:
    above = set(LAYERS[LAYERS.index(module(path).split(".")[0]) + 1 :] + SCRIPTS)
    upward = {name for name in imports(path) if name.split(".")[0] in above}
    assert not upward


def test_order_inside_training() -> None:
    for path in SOURCES:
        name = module(path)
        place = next((i for i, prefix in enumerate(ORDER) if name.startswith(prefix)), None)
        if place is not None:
            later = [imp for imp in imports(path) for prefix in ORDER[place + 1 :] if imp.startswith(prefix)]
            assert not later, name
        if name in INDEPENDENT:
            assert not [imp for imp in imports(path) if imp.startswith("training.") and imp not in INDEPENDENT], name
        is_above = name in ("training.loop", "training.supervisor")
        assert is_above or not any(imp.startswith("training.loop") for imp in imports(path)), name


def test_no_torch_where_answers_must_come_at_once() -> None:
    """--help of every script, and everything dnnlib, dataset_tool and the configuration do, work without torch."""
    code = "import sys; sys.modules['torch'] = None; import training.config, training.presets, " + ", ".join(SCRIPTS)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", [*SOURCES, *(ROOT / f"{name}.py" for name in SCRIPTS)], ids=module)
def test_functions_fit_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"


def test_links_of_the_architecture_page_lead_somewhere() -> None:
    page = ROOT / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20
    assert not [link for link in links if not (page.parent / link).exists()]
    folders = {path.relative_to(ROOT).as_posix() for name in LAYERS for path in (ROOT / name).rglob("__init__.py")}
    named = set(re.findall(r"`([\w/]+)/`", text)) | {link.strip("./").rstrip("/") for link in links}
    unnamed = {
        folder
        for folder in (path.removesuffix("/__init__.py") for path in folders)
        if folder not in named and folder.split("/")[-1] not in named and not folder.startswith("metrics/weights")
    }
    assert not unnamed, "folders that the page does not mention"


def test_the_architecture_page_is_short() -> None:
    assert len((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines()) < 150
