"""The notebook, run from beginning to end with few iterations."""

import json
import re

import matplotlib
from commands import ROOT, without_xla

import mnist_dvae
import sound_dvae

SMALL = "batch_size=64, hidden=(64,)"


def test_the_notebook_runs_and_has_no_outputs_in_git(capsys, monkeypatch):
    """Without a kernel: then IPython's `display` prints the objects."""
    import matplotlib.pyplot as plt

    cells = json.loads((ROOT / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(cells) <= 15 and not any(cell["outputs"] for cell in code)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(mnist_dvae, "HELD_OUT", 64)
    monkeypatch.setattr(sound_dvae, "HELD_OUT_WINDOWS", 64)
    replaced = (r"(ITERATIONS = )\d+, \d+", r"\g<1>100, 5"), (r"(iters=\w+)", rf"\1, {SMALL}")
    with without_xla(), matplotlib.rc_context({"backend": "Agg"}):
        names = {}
        for cell in code:
            source = "".join(cell["source"])
            for old, new in replaced:
                source = re.sub(old, new, source)
            exec(source, names)
        figures = plt.get_fignums()
        plt.close("all")
    said = capsys.readouterr().out
    assert len(figures) == 2 and said.count("display.Audio object") == 4  # players
    snr = [float(text) for text in re.findall(r"SNR (-?[\d.]+) dB", said)]
    assert snr[-1] > snr[0] + 5
    assert re.findall(r"after (\d+) iterations: loss", said) == ["0", "5"]
