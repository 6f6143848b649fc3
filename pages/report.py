"""The report of a run: index.html, and event files for TensorBoard.

The page embeds figures and sounds, so it can be sent as one file. If their total size exceeds
EMBED_AT_MOST, as with long recordings, the page links to them instead.
"""

import base64
import csv
import hashlib
import json
import math
import shutil
import struct
import tempfile
from functools import partial
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

import corrupt
from harness.quiet_tensorflow import tf
from harness.run_folder import CONFIG, EVENTS, INDEX, METHOD, SCORES

EMBED_AT_MOST = 40e6  # bytes
PLAY = "play.html"  # absent if the model is too large for a browser
SOUNDS = {  # WAVs that belong to no checkpoint
    "chopped": "The corrupted sound, the network's input",
    "clean": "The clean sound, before the corruption",
    "tone": "The noise-free tone, which the network never sees",
    "restored": "The restored sound: gaps filled, noise removed",
}
RESTORED = "restored.png"
OUTPUTS = [f"{stem}.{end}" for stem in ("reconstruction", "generated") for end in ("png", "wav")]
WRITTEN = [PLAY, RESTORED]  # patterns of the files that a run writes, besides those of `Run`
WRITTEN += [f"{name}.wav" for name in SOUNDS]
WRITTEN += [name.replace(".", "_[0-9]*.") for name in OUTPUTS]
COLUMNS = {  # column of scores.csv: (label, unit)
    "train_loss": ("training loss", "nats"),
    "loss": ("held-out loss", "nats"),
    "nll": ("held-out NLL", "nats"),
    "kl": ("KL divergence", "nats"),
    "snr_db": ("SNR of windows", "dB"),
    "gap_snr_db": ("SNR in the gaps of windows", "dB"),
    "long_snr_db": ("SNR of the long sound", "dB"),
    "long_gap_snr_db": ("SNR in the gaps of the long sound", "dB"),
    "long_si_sdr_db": ("SI-SDR of the long sound", "dB"),
    "long_lsd_db": ("log-spectral distance of the long sound", "dB, lower is better"),
    "generated_one_note": ("generated sounds that are a single note", "fraction"),
    "generated_notes": ("different notes in generated sounds", "effective number"),
    "hole_mse": ("squared error in the hole", "white = 1"),
    "hole_mse_over_mean_fill": ("squared error in the hole", "times mean fill"),
    "mse": ("squared error of the image", "white = 1"),
    "classifier_error": ("misclassified", "fraction"),
    "hole_error_over_std": ("error in the hole over predictive std", "1 is calibrated"),
    "hole_nats_per_pixel": ("NLL in the hole", "nats per pixel"),
    "generated_confidence": ("classifier's confidence in generated digits", "probability"),
    "generated_classes": ("different classes in generated digits", "effective number"),
}
SUMMARIES = "snr_db", "long_snr_db", "hole_mse_over_mean_fill", "mse", "loss"  # by priority
CHARTS = {  # title: columns
    "Loss": ("train_loss", "loss", "nll"),
    "KL divergence": ("kl",),
    "Signal-to-noise ratio": ("snr_db", "long_snr_db"),
    "Squared error in the hole": ("hole_mse_over_mean_fill",),
}
NOT_FLAGS = "command", "experiment", "files", "finished", "provenance"  # entries of config.json
THINGS = {"mnist": "image", "sound": "sound"}  # what an experiment restores


def rounded(value):
    """Format a number, or its text, with four significant digits and a true minus sign."""
    text = f"{float(value):.4g}" if value or value == 0 else ""
    return text.replace("-", "\N{MINUS SIGN}")


TEMPLATES = Environment(loader=PackageLoader("pages", ""), autoescape=True, trim_blocks=True)
TEMPLATES.filters |= {
    "column": lambda name: COLUMNS.get(name, (name.replace("_", " "), "")),
    "number": rounded,
    "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    "size": lambda png: struct.unpack(">II", png.read_bytes()[16:24]),  # a PNG's width and height
}


def files(folder):
    """Return the page of a run and, with --tensorboard, an event file of the last checkpoint.

    They are {file name: function that writes a path}. The run may be unfinished.
    """
    folder = Path(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    rows, ours, baselines = _scores(folder)
    summary = next((name for name in SUMMARIES if name in rows[-1]), "loss")
    ends = baselines or rows
    ends = ends[:: max(1, len(ends) - 1)]  # the first and the last, e.g. the input and the oracle
    levels = ends if baselines else []
    paths = {folder / f"{name}.wav": label for name, label in SOUNDS.items()}
    sounds = {path: label for path, label in paths.items() if path.exists()}
    steps = [(row, _outputs(folder, row)) for row in rows]
    restored = [path for path in [folder / RESTORED] if path.exists()]
    outputs = [path for _, outputs in steps for path in outputs.values()]
    size = sum(path.stat().st_size for path in (*sounds, *restored, *outputs))
    html = TEMPLATES.get_template("report.html.j2").render(
        config=config,
        thing=THINGS[config["experiment"]],
        damage=corrupt.describe(config["corruption"], config["amount"], config.get("noise")),
        play=PLAY if (folder / PLAY).exists() else None,
        rows=rows,
        steps=steps,
        sounds=sounds,
        restored=restored,
        summary=summary,
        ends=ends,
        flags=_flags(config),
        provenance=_provenance(**config.get("provenance", {})),
        compared=_ranked(ours, baselines, summary),
        columns=[*dict.fromkeys(name for row in baselines for name in row if name != "method")],
        charts=[_chart(title, names, rows, levels) for title, names in CHARTS.items()],
        url=_embedded if size <= EMBED_AT_MOST else lambda path: Markup(quote(path.name)),
    )
    # Paths in the page may not be valid Unicode.
    save = {INDEX: lambda path: path.write_text(html, encoding="utf-8", errors="replace")}
    if config.get("tensorboard") and not baselines:  # baselines come after the last checkpoint
        # A resumed run replaces the file of a checkpoint that it repeats. TensorBoard reads all.
        name = f"{EVENTS}{int(rows[-1]['iteration']):06d}"
        save[name] = partial(_write_events, rows[-1], _outputs(folder, rows[-1]))
    return save


def _embedded(path):
    """Return a file as a data URL, marked as safe because escaping megabytes is slow."""
    kind = {".png": "image/png", ".wav": "audio/wav"}[path.suffix]
    return Markup(f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}")


def _flags(config):
    """Return {flag: value} of the settings that are on or have a value."""
    flags = {}
    for name, value in config.items():
        if name not in NOT_FLAGS and value is not None and value is not False:
            flag = Markup("<code>--{}</code>").format(name.replace("_", "-"))
            flags[flag] = ",".join(map(str, value)) if isinstance(value, list) else value
    return flags


def _provenance(versions=None, **data):
    """Return {name: text} for a run's data and the versions of its libraries."""
    formats = {int: "{:,}".format, float: rounded}
    data = {name: formats.get(type(value), str)(value) for name, value in data.items()}
    return {name.replace("_", " "): text for name, text in data.items()} | (versions or {})


def _ranked(row, baselines, summary):
    """Return the model's row and the baselines from worst to best, or [] without baselines.

    They are ranked by the first score that all baselines have. A missing score counts as worst.
    """
    if not baselines:
        return []
    common = (name for name in (summary, *SUMMARIES) if all(name in row for row in baselines))
    summary = next(common, summary)
    sign = 1 if COLUMNS[summary][1] == "dB" else -1  # SNRs are better if higher

    def rank(row):
        score = _number(row, summary)
        return -math.inf if math.isnan(score) else sign * score

    return sorted([row, *baselines], key=rank)


def _write_events(row, outputs, path):
    """Write a checkpoint's scores, figures and sounds as an event file for TensorBoard."""
    with tempfile.TemporaryDirectory() as folder:
        writer = tf.summary.create_file_writer(folder)
        with writer.as_default(step=int(row["iteration"])):
            for name in row.keys() - {"method", "iteration"}:
                tf.summary.scalar(name, float(row[name]))
            for name, output in outputs.items():
                if output.suffix == ".png":
                    tf.summary.image(name, tf.io.decode_png(output.read_bytes())[None])
                else:
                    sound, rate = tf.audio.decode_wav(output.read_bytes())
                    tf.summary.audio(name, sound[None], rate)
        writer.close()
        (events,) = Path(folder).iterdir()  # TensorFlow chooses the name
        shutil.copyfile(events, path)


def _scores(folder):
    """Return the rows of checkpoints, the model's final row and the rows of baselines.

    They have no empty or nan cells. An unfinished run's last checkpoint is its final row.
    """
    with open(folder / SCORES, newline="", encoding="utf-8") as file:
        table = [
            {name: text for name, text in row.items() if text not in ("", "nan")}
            for row in csv.DictReader(file)
        ]
    checkpoints = [row for row in table if "iteration" in row]
    final = {row["method"]: row for row in table[len(checkpoints) :]}
    return checkpoints, checkpoints[-1] | final.pop(METHOD, {}), list(final.values())


def _outputs(folder, row):
    """Return the files of a checkpoint, as {"reconstruction.png": path, ...}."""
    number = f"_{int(row['iteration']):06d}."
    paths = {name: folder / name.replace(".", number) for name in OUTPUTS}
    return {name: path for name, path in paths.items() if path.exists()}


def _number(row, name):
    """Return a score as a number, nan if the row has none."""
    return float(row.get(name, "nan"))


def _chart(title, names, rows, baselines):
    """Return the chart of some columns and of baselines' scores, or None without finite values."""
    curves = {
        name: [(i, y) for i, row in enumerate(rows) if math.isfinite(y := _number(row, name))]
        for name in names
        if name in rows[-1]
    }
    across = {row["method"]: y for row in baselines if math.isfinite(y := _number(row, names[0]))}
    values = [y for curve in curves.values() for _, y in curve] + list(across.values())
    if not values:
        return None
    ticks = list(MaxNLocator(5).tick_values(min(values), max(values)))
    unit = COLUMNS[names[0]][1]
    return {"title": title, "unit": unit, "curves": curves, "across": across, "ticks": ticks}
