"""The notebook, run from beginning to end with few iterations."""

import re

import nbformat
from commands import ROOT
from nbclient import NotebookClient


def test_the_notebook_runs_and_has_no_outputs_in_git():
    notebook = nbformat.read(ROOT / "tutorial.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) <= 15 and not any(cell.outputs for cell in code)
    for cell in code:
        cell.source = re.sub(r"(ITERATIONS = )\d+, \d+", r"\g<1>100, 20", cell.source)
    NotebookClient(notebook, resources={"metadata": {"path": ROOT}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 2 and kinds.count("text/html") == 4  # figures, players
    said = "".join(output.get("text", "") for output in outputs)
    snr = [float(text) for text in re.findall(r"SNR (-?[\d.]+) dB", said)]
    assert snr[-1] > snr[0] + 5
    assert re.findall(r"after (\d+) iterations: loss", said) == ["0", "20"]
