"""The notebook runs, in a kernel as a notebook's, and shows what goes on."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


def test_quickstart_runs_and_shows_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (sizes,) = [cell for cell in notebook.cells if "NUM_PROBLEMS, STEPS =" in cell.source]
    sizes.source += "\nNUM_PROBLEMS, STEPS = 16, 4"
    for cell in notebook.cells:
        cell.pop("outputs", None) if cell.cell_type != "code" else cell.update(outputs=[])
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()

    (training,) = [cell for cell in notebook.cells if cell.source.startswith("run = astarpo.train")]
    pages = [output.data for output in training.outputs if "data" in output]
    bar = next(page["text/html"] for page in pages if "<progress" in page.get("text/html", ""))
    assert '<progress value="4" max="4"></progress> training: steps 4/4' in bar
    printed = "".join(o.text for o in training.outputs if o.output_type == "stream")
    assert "train: writes to runs/train-" in printed
    assert not [o for o in training.outputs if o.get("name") == "stderr"]
    assert "<run runs/train-" in pages[-1]["text/plain"]
    own = notebook.cells[-1]
    assert "length_mean" in own.outputs[-1].data["text/html"]
    runs = sorted(path.name.partition("-")[0] for path in (tmp_path / "runs").iterdir())
    assert runs.count("train") == runs.count("estimate") == runs.count("evaluate") == 2
