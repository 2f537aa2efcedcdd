"""docs/styleformer_colab.ipynb: well formed, with options that exist, and it runs from top to bottom."""

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "styleformer_colab.ipynb"
SCRIPTS = ["train", "generate", "calc_metrics", "dataset_tool"]


def notebook() -> NotebookNode:
    return nbformat.read(PATH, as_version=4)


def code_cells() -> dict[str, str]:
    return {cell.id: cell.source for cell in notebook().cells if cell.cell_type == "code"}


def with_settings(nb: NotebookNode, **settings: object) -> NotebookNode:
    """The notebook with other values in its form."""
    cell = next(cell for cell in nb.cells if cell.id == "settings")
    for name, value in settings.items():
        cell.source, count = re.subn(rf"(?m)^{name} = [^#\n]*?(?=  #|$)", f"{name} = {value!r}", cell.source)
        assert count == 1, name
    return nb


def test_the_notebook_is_valid_and_stores_no_outputs() -> None:
    nb = notebook()
    nbformat.validate(nb)
    for cell in nb.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None), cell.id
    assert len({cell.id for cell in nb.cells}) == len(nb.cells)
    assert all(re.fullmatch(r"[a-z-]+", cell.id) for cell in nb.cells)  # names, which stay when a cell is edited


def test_every_option_in_the_notebook_is_one_of_the_script_it_is_given_to() -> None:
    help_texts = {name: (ROOT / "docs" / f"{name}-help.txt").read_text(encoding="utf-8") for name in SCRIPTS}
    scripts_of = {"pack": "dataset_tool", "train": "train", "generate": "generate", "measure": "calc_metrics"}
    for cell, script in scripts_of.items():
        source = code_cells()[cell]
        assert f'run("{script}.py"' in source
        options = set(re.findall(r"--[a-z][a-z-]*", source))
        assert options
        known = set(re.findall(r"--[a-z_][a-z_-]*", help_texts[script]))
        assert options <= known, script
    assert "--mirror" in help_texts["train"] and "--gamma" in help_texts["train"]  # named in the form


@pytest.mark.slow
def test_it_runs_from_top_to_bottom_and_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU with few images; the second pass resumes the run of the first."""
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    settings = {"FOLDER": str(tmp_path / "kept"), "MAX_IMAGES": 300, "KIMG": 0.1, "SEEDS": "0-7"}
    nb = execute(with_settings(notebook(), **settings))
    grids = images(nb)
    assert [grid.size for grid in grids] == [(320, 256), (320, 256), (96, 96)]  # real, while training, generated
    assert all(np.asarray(grid).std() > 5 for grid in grids)
    assert re.search(r"proxy_fd_randconv_v1", output_of(nb, "measure"))
    nb = execute(with_settings(notebook(), **{**settings, "KIMG": 0.12}), until="train")
    assert "Resuming" in output_of(nb, "train")
    assert len(list((tmp_path / "kept" / "runs").glob("*/[0-9]*-*"))) == 1  # a folder per data set


def execute(nb: NotebookNode, until: str = "measure") -> NotebookNode:
    """Run the cells up to this one, in the folder where the notebook lies."""
    last = next(index for index, cell in enumerate(nb.cells) if cell.id == until)
    nb.cells = nb.cells[: last + 1]
    NotebookClient(nb, timeout=600, resources={"metadata": {"path": str(PATH.parent)}}).execute()
    return nb


def output_of(nb: NotebookNode, cell_id: str) -> str:
    """What a cell printed."""
    cell = next(cell for cell in nb.cells if cell.id == cell_id)
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def images(nb: NotebookNode) -> list[Image.Image]:
    """The PNG images that the notebook shows, in order."""
    found = [
        output.data for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output
    ]
    return [Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) for data in found if "image/png" in data]
