"""What a run has written, on one page, index.html, and as event files for TensorBoard.

The page's pictures and sounds are embedded, so that the one file can be sent to somebody. Checkpoints double, so even
a million iterations have only 16 of them. If the files are more than EMBED_AT_MOST, which takes long recordings, the
page links to them instead.
"""

import base64
import csv
import hashlib
import json
import math
import struct
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from harness.quiet_tensorflow import tf
from harness.run_folder import CONFIG, SCORES, replacing

EMBED_AT_MOST = 40e6  # bytes
PLAY = "play.html"  # beside this page, where the model is not too large for it
INPUTS = "chopped", "clean", "tone", "restored"  # WAVs of a run
RESTORED = "restored.png"
KINDS = [
    (stem, end) for stem in ("reconstruction", "generated") for end in ("png", "wav")
]  # a checkpoint's files
WRITTEN = (  # patterns of all these, and of the page and the event files
    "index.html",
    PLAY,
    "events.out.tfevents.*",
    RESTORED,
    *(f"{name}.wav" for name in INPUTS),
    *(f"{stem}_[0-9]*.{end}" for stem, end in KINDS),
)
COLUMNS = {  # of scores.csv: what a reader calls them, and their units
    "train_loss": ("training loss", "nats"),
    "loss": ("held-out loss", "nats"),
    "nll": ("held-out NLL", "nats"),
    "kl": ("KL divergence", "nats"),
    "snr_db": ("SNR of windows", "dB"),
    "gap_snr_db": ("SNR in their gaps", "dB"),
    "long_snr_db": ("SNR of the long sound", "dB"),
    "long_gap_snr_db": ("SNR in its gaps", "dB"),
    "long_si_sdr_db": ("its SI-SDR", "dB"),
    "long_lsd_db": ("its log-spectral distance", "dB, less is better"),
    "generated_one_note": ("new sounds that are one note", "share"),
    "generated_notes": ("different notes among them", "effective number"),
    "hole_mse": ("squared error in the hole", "white = 1"),
    "hole_mse_over_mean_fill": ("error in the hole", "of mean fill"),
    "mse": ("squared error of the image", "white = 1"),
    "classifier_error": ("misclassified", "share"),
    "hole_error_over_claimed": (
        "error in the hole over the predictive deviation",
        "1 is calibrated",
    ),
    "hole_nats_a_pixel": ("NLL of its pixels", "nats each"),
    "generated_confidence": ("classifier's confidence in new digits", "probability"),
    "generated_classes": ("different classes among them", "effective number"),
}
SUMMARIES = (
    "snr_db",
    "long_snr_db",
    "hole_mse_over_mean_fill",
    "mse",
    "loss",
)  # the first that a run has sums it up
CHARTS = {
    "Loss": ("train_loss", "loss", "nll"),
    "KL divergence": ("kl",),
    "Signal-to-noise ratio": ("snr_db", "long_snr_db"),
    "Error in the hole": ("hole_mse_over_mean_fill",),
}

PAGE = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
)
PAGE.filters |= {
    "column": lambda name: COLUMNS.get(name, (name.replace("_", " "), "")),
    "number": lambda value: rounded(value).replace("-", "\N{MINUS SIGN}"),
    "sha256": lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    "size": lambda png: struct.unpack(
        ">II", png.read_bytes()[16:24]
    ),  # width and height, in a PNG's first chunk
}


def write(folder):
    """Write index.html from what the run in `folder` has written so far; event files too, if its settings say so."""
    folder = Path(folder)
    config = json.loads((folder / CONFIG).read_text())
    rows, baseline_rows = _scores(folder)
    summary = next((name for name in SUMMARIES if name in rows[-1]), "loss")
    ends = baseline_rows or rows  # the input and the best there can be; or what there is
    ends = ends[:: max(1, len(ends) - 1)]
    charts = (
        _chart(title, names, rows, ends if baseline_rows else []) for title, names in CHARTS.items()
    )
    sounds = {name: path for name in INPUTS if (path := folder / f"{name}.wav").exists()}
    steps = [(row, _outputs(folder, row)) for row in rows]
    restored = [path] if (path := folder / RESTORED).exists() else []
    paths = [
        *sounds.values(),
        *restored,
        *(path for _, outputs in steps for path in outputs.values()),
    ]
    embed = sum(path.stat().st_size for path in paths) <= EMBED_AT_MOST

    def url(path):
        kind = {".png": "image/png", ".wav": "audio/wav"}[path.suffix]
        data = (
            f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
            if embed
            else quote(path.name)
        )
        return Markup(
            data
        )  # neither has a character that HTML would mind; to search megabytes for one takes time

    html = PAGE.get_template("report.html.j2").render(
        config=config,
        play=PLAY if (folder / PLAY).exists() else None,
        rows=rows,
        steps=steps,
        sounds=sounds,
        restored=restored,
        summary=summary,
        ends=ends,
        compared=_ranked(rows[-1], baseline_rows, ends, summary),
        charts=[chart for chart in charts if chart],
        url=url,
    )
    with replacing(folder / "index.html") as path:
        path.write_text(
            html, encoding="utf-8", errors="replace"
        )  # the folder's name may not be Unicode
    if config.get("tensorboard") and not baseline_rows:  # at the end they have all been written
        _write_events(folder, rows)


def rounded(value):
    """A score, or its text, to four digits, as the terminal shows it; "" for none, and what is no number as it is."""
    try:
        return f"{float(value):.4g}" if value or value == 0 else ""
    except ValueError:
        return value


def _ranked(row, baseline_rows, ends, summary):
    """The baselines and, in its place among them, the model's row; from the worst to the best. [] without baselines."""
    if not baseline_rows:
        return []
    if not all(summary in row for row in baseline_rows):  # not every method restores windows
        summary = next(
            (name for name in SUMMARIES if all(name in row for row in baseline_rows)), summary
        )
    sign = 1 if _number(ends[-1], summary) >= _number(ends[0], summary) else -1
    return sorted(
        [row, *baseline_rows],
        key=lambda row: sign * _number(row, summary, missing=-sign * math.inf),
    )


def _write_events(folder, rows):
    """Write the last checkpoint's scores, pictures and sounds for TensorBoard, as an event file in `folder`."""
    if len(rows) == 1:  # a run from the start replaces what an earlier one has left here
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=int(rows[-1]["iteration"])):
        for name in rows[-1].keys() - {"method", "iteration"}:
            tf.summary.scalar(name, float(rows[-1][name]))
        for name, path in _outputs(folder, rows[-1]).items():
            if path.suffix == ".png":
                tf.summary.image(name, tf.io.decode_png(path.read_bytes())[None])
            else:
                sound, rate = tf.audio.decode_wav(path.read_bytes())
                tf.summary.audio(name, sound[None], rate)
    writer.close()


def _scores(folder):
    """The rows of scores.csv: the model's, one a checkpoint, and the others', each without columns empty or nan."""
    with open(Path(folder) / SCORES, newline="") as file:
        rows = [
            {name: text for name, text in row.items() if text not in ("", "nan")}
            for row in csv.DictReader(file)
        ]
    return [row for row in rows if "iteration" in row], [
        row for row in rows if "iteration" not in row
    ]


def _outputs(folder, row):
    """What the checkpoint of this row has written: {"reconstruction.png": path, "generated.wav": path, ...}."""
    paths = {
        f"{stem}.{end}": Path(folder) / f"{stem}_{int(row['iteration']):06d}.{end}"
        for stem, end in KINDS
    }
    return {name: path for name, path in paths.items() if path.exists()}


def _number(row, name, missing=math.nan):
    """A score as a number, or `missing` if the row has none or it is not finite."""
    value = float(row.get(name, "nan"))
    return value if math.isfinite(value) else missing


def _chart(title, names, rows, ends):
    """Curves of some columns over the checkpoints, and the ends of the baselines across; None if there is none."""
    curves = {
        name: [(i, _number(row, name)) for i, row in enumerate(rows)]
        for name in names
        if name in rows[-1]
    }
    curves = {
        name: [point for point in curve if math.isfinite(point[1])]
        for name, curve in curves.items()
    }
    across = {
        row["method"]: _number(row, names[0])
        for row in ends
        if math.isfinite(_number(row, names[0]))
    }
    values = [value for curve in curves.values() for _, value in curve] + list(across.values())
    if not values:
        return None
    ticks = list(MaxNLocator(5).tick_values(min(values), max(values)))
    return {
        "title": title,
        "unit": COLUMNS[names[0]][1],
        "curves": curves,
        "across": across,
        "ticks": ticks,
    }
