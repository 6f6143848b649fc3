"""The report of a run in a browser, and its event files as TensorBoard reads them."""

import base64
import csv
import fnmatch
import html
import itertools
import json
import re
import shutil
import wave

import numpy as np
import pytest
from commands import refused, run, until
from matplotlib import image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from pages import report

NAME = """<script>document.title = "broken"</script>' " & ä""".replace("/", "\N{FRACTION SLASH}")
SCORES = "iteration", "train_loss", "loss", "kl", "snr_db", "new_score"
ROWS = [
    {"method": "DVAE", **dict(zip(SCORES, scores))}
    for scores in [
        (0, "nan", 1000, 0.25, -4.5, 1),
        (100, 300, 200, 20, 9, 2),
        (1234567, 40, -50, 10, 21, 3),
    ]
]
BASELINES = [
    {"method": "chopped <b>input", "snr_db": 3},
    {"method": "middling", "snr_db": 5.5},
    {"method": "oracle", "snr_db": 30},
]


def make_run(folder, rows=ROWS, baselines=BASELINES, sounds=True):
    """Make a run's folder. Return {file name: width of the picture or seconds of the sound}.

    All widths and lengths differ.
    """
    folder.mkdir()
    config = {
        "experiment": "sound" if sounds else "mnist",
        "iters": 1234567,
        "hidden": [64, 8],
        "corruption": "block",
        "amount": 0.2,
        "out": str(folder),
        "data": None,
        "command": f"python sound_dvae.py --out '{folder.name}'",
    }
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "scores.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows + baselines)
    rng = np.random.default_rng(0)
    kinds = "reconstruction", "generated"
    names = [f"{kind}_{row['iteration']:06d}" for row in rows for kind in kinds]
    sizes = {f"{name}.png": width for width, name in enumerate(names, 700)}
    for name, width in sizes.items():
        image.imsave(folder / name, rng.random((40, width, 3)))
    for name in (*names, "chopped", "clean") if sounds else ():
        sizes[f"{name}.wav"] = 0.5 + len(sizes) / 10
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(2 * round(8000 * sizes[f"{name}.wav"])))
    (folder / "reconstruction_000200.png").write_bytes(b"of an earlier run: not shown")
    return sizes


def write(folder):
    """Write the page of a run as `Run` does."""
    for name, save in report.files(folder).items():
        save(folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / NAME
    sizes = make_run(folder)
    write(folder)
    return folder, sizes


def complete(browser):
    """True once every picture is loaded and the length of every sound is known."""
    return browser.execute_script("""
        const players = [...document.querySelectorAll("audio")];
        return [...document.images].every(image => image.complete && image.naturalWidth)
            && players.every(player => player.readyState >= HTMLMediaElement.HAVE_METADATA)""")


def opened(browser, folder):
    """Load the page of a run. Chromedriver may return before the page is read to its end."""
    browser.get("about:blank")  # what is found afterwards is not of the page before
    browser.get((folder / "index.html").as_uri())
    until(lambda: browser.find_elements("tag name", "footer"))


def embedded(folder):
    """Return the contents of all files embedded in the page."""
    html = (folder / "index.html").read_text()
    found = re.findall(r' src="data:[a-z]+/[a-z]+;base64,([^"]*)"', html)
    return {base64.b64decode(data) for data in found}


def test_page_embeds_all_files_and_loads_nothing(made):
    folder, sizes = made
    assert embedded(folder) == {(folder / name).read_bytes() for name in sizes}
    html = re.sub(r'"data:[^"]*"', '""', (folder / "index.html").read_text())
    assert not re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?[^\"'\s]", html)
    assert "http:" not in html and "https:" not in html


@pytest.mark.parametrize("embed_at_most", [0, 40e6])
def test_browser_loads_every_picture_and_sound(made, chromium, monkeypatch, embed_at_most):
    folder, sizes = made
    monkeypatch.setattr(report, "EMBED_AT_MOST", embed_at_most)
    write(folder)
    opened(chromium, folder)
    until(lambda: complete(chromium))
    widths = chromium.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert sorted(widths) == sorted(size for name, size in sizes.items() if name.endswith(".png"))
    script = "return [...document.querySelectorAll('audio')].map(a => a.duration)"
    seconds = sorted(size for name, size in sizes.items() if name.endswith(".wav"))
    assert sorted(chromium.execute_script(script)) == pytest.approx(seconds)
    script = "return performance.getEntriesByType('resource').map(r => r.name)"
    loaded = chromium.execute_script(script)
    assert all(name.startswith("data:" if embed_at_most else "file:") for name in loaded)
    assert chromium.get_log("browser") == []


def test_names_of_the_folder_and_of_methods_are_escaped(made, chromium):
    opened(chromium, made[0])
    assert chromium.title.endswith(NAME)
    assert NAME in chromium.find_element("id", "command").text
    assert "chopped <b>input" in chromium.find_element("tag name", "main").text
    assert chromium.execute_script("return document.scripts.length") == 1


def test_slider_steps_through_checkpoints_by_keyboard(made, chromium):
    from selenium.webdriver import Keys

    opened(chromium, made[0])
    slider, shown = (chromium.find_element("id", name) for name in ("slider", "shown"))

    def visible():
        images = [i for i in chromium.find_elements("tag name", "img") if i.is_displayed()]
        return [int(i.get_attribute("naturalWidth")) for i in images]

    assert slider.accessible_name == "Iteration" and visible() == [704, 705]
    for key, widths, says in [
        (Keys.ARROW_LEFT, [702, 703], "100: SNR of windows 9 dB"),
        (Keys.HOME, [700, 701], "0: SNR of windows \N{MINUS SIGN}4.5 dB"),
        (Keys.END, [704, 705], "1234567: SNR of windows 21 dB"),
    ]:
        slider.send_keys(key)
        assert visible() == widths and shown.text == slider.get_attribute("ariaValueText") == says


def test_checkpoints_are_visible_in_print_and_without_scripts(made, chromium):
    folder, sizes = made
    opened(chromium, folder)
    until(lambda: complete(chromium))
    pdf = base64.b64decode(chromium.execute_cdp_cmd("Page.printToPDF", {})["data"])
    printed = {int(width) for width in re.findall(rb"/Width (\d+)", pdf)}
    assert printed >= {size for name, size in sizes.items() if name.endswith(".png")}

    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    opened(chromium, folder)
    images = chromium.find_elements("tag name", "img")
    heights = [i.rect["height"] for i in images]
    slider = chromium.find_element("id", "slider").rect["height"]
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert len(images) == 6 and min(heights) > 10 and slider == 0


def test_narrow_screen_does_not_scroll_sideways(made, chromium):
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True},
    )
    opened(chromium, made[0])
    widths = chromium.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths == [360, 360]


def test_page_suits_a_screen_reader(made, chromium):
    """Headings are nested, players have names, pictures have alternative texts."""
    opened(chromium, made[0])
    headings = chromium.find_elements("css selector", "h1, h2, h3, h4, h5, h6")
    levels = [int(heading.tag_name[1]) for heading in headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    players = [p for p in chromium.find_elements("tag name", "audio") if p.is_displayed()]
    assert len({p.accessible_name for p in players} - {""}) == len(players) == 4
    alternatives = [i.get_attribute("alt") for i in chromium.find_elements("tag name", "img")]
    assert len(set(alternatives)) == 6 and all("iterations" in text for text in alternatives)


def test_table_and_charts_show_the_scores(made, chromium):
    opened(chromium, made[0])
    rows = chromium.find_elements("css selector", "#good ~ .scroll tbody tr")
    cells = [row.text.split() for row in rows]
    assert [(row[0], row[-1]) for row in cells] == [
        ("chopped", "3"),
        ("middling", "5.5"),
        ("DVAE", "21"),
        ("oracle", "30"),
    ]
    model = chromium.find_element("css selector", "tr.model").text
    assert model.startswith("DVAE") and model.endswith("21")
    charts = {}
    for chart in chromium.find_elements("css selector", ".charts figure"):
        dots = chart.find_elements("css selector", "circle")
        title = chart.find_element("tag name", "h3").text
        charts[title] = [-float(dot.get_attribute("cy")) for dot in dots]
    assert list(charts) == ["Loss", "KL divergence", "Signal-to-noise ratio"]
    for title, name in (("KL divergence", "kl"), ("Signal-to-noise ratio", "snr_db")):
        assert np.corrcoef(charts[title], [row[name] for row in ROWS])[0, 1] == pytest.approx(1)
    assert len(charts["Loss"]) == 5  # there is no training loss before the first iteration


def test_lines_and_labels_of_a_chart_are_at_their_values(made, chromium):
    """The heights of dots, of the labels of the y axis and of the baselines have one scale."""
    opened(chromium, made[0])
    *_, svg = chromium.find_elements("css selector", ".charts figure > svg")  # of the SNR
    dots = [float(dot.get_attribute("cy")) for dot in svg.find_elements("tag name", "circle")]
    titles = [
        title.get_attribute("textContent") for title in svg.find_elements("tag name", "title")
    ]
    minus = "\N{MINUS SIGN}"
    assert titles == [f"SNR of windows: {each}" for each in (f"{minus}4.5", "9", "21")]
    slope, start = np.polyfit(dots, [row["snr_db"] for row in ROWS], 1)
    texts = [(text.text, text.get_attribute("y")) for text in svg.find_elements("tag name", "text")]
    heights = {name: float(y) for name, y in texts}
    labels = [name for name in heights if re.fullmatch(f"{minus}?[0-9.]+", name)]
    labels = [name for name in labels if name not in {str(row["iteration"]) for row in ROWS}]
    values = {name: float(name.replace(minus, "-")) for name in labels}
    values |= {row["method"]: row["snr_db"] for row in (BASELINES[0], BASELINES[-1])}
    assert len(values) > 5
    for name, value in values.items():
        assert slope * heights[name] + start == pytest.approx(value, abs=0.05), name
    lines = svg.find_elements("css selector", ".across")
    heights = [float(re.match("M54 (.*)H", line.get_attribute("d"))[1]) for line in lines]
    assert slope * np.array(heights) + start == pytest.approx([3, 30], abs=0.05)


def test_the_command_is_copied_and_one_sound_plays_at_a_time(made, chromium):
    opened(chromium, made[0])
    button, command = (chromium.find_element("id", name) for name in ("copy", "command"))
    button.click()
    until(lambda: button.text != "Copy")  # without the right to copy, the text is only selected
    assert chromium.execute_script("return getSelection().toString()") == command.text
    stopped = chromium.execute_script("""
        const players = [...document.querySelectorAll("audio")], stopped = [];
        players.forEach((player, i) => { player.pause = () => stopped.push(i); });
        players[1].dispatchEvent(new Event("play"));
        return [stopped, players.length]""")
    assert stopped == [[i for i in range(stopped[1]) if i != 1], stopped[1]]


def test_each_player_has_the_label_of_its_sound(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "EMBED_AT_MOST", 0)
    make_run(tmp_path / "run")
    write(tmp_path / "run")
    page = (tmp_path / "run" / "index.html").read_text()
    player = r'<span id="([^"]*)">([^<]*)</span>\s*<audio [^>]*labelledby="([^"]*)" src="([^"]*)"'
    players = re.findall(player, page)
    assert len(players) == page.count("<audio ")
    for name, label, labelled_by, file in players:
        assert name == labelled_by and file == f"{name}.wav"
        expected = report.SOUNDS.get(name) or f"after {int(name.split('_')[1])} iterations"
        assert html.unescape(label).endswith(expected)


@pytest.mark.parametrize("sounds", [True, False])
def test_each_picture_has_the_caption_of_its_kind(tmp_path, monkeypatch, sounds):
    monkeypatch.setattr(report, "EMBED_AT_MOST", 0)
    make_run(tmp_path / "run", sounds=sounds)
    write(tmp_path / "run")
    page = (tmp_path / "run" / "index.html").read_text()
    picture = r'<img src="(\w+)_(\d+)\.png"[^>]* alt="([^"]*)"></div>\s*<figcaption>([^<]*)\.<'
    pictures = re.findall(picture, page)
    assert len(pictures) == page.count("<img ") == 6
    new = "New sounds" if sounds else "New images"
    for kind, number, alternative, caption in pictures:
        assert caption == alternative and f"after {int(number)} iterations" in caption
        assert caption.startswith(new) == (kind == "generated")
        assert ("corrupted" in caption) == (kind == "reconstruction")


AFTER = [f"SNR of windows after {row['iteration']} iterations" for row in ROWS]


@pytest.mark.parametrize(
    "rows, baselines, expected",
    [
        (ROWS, BASELINES, [("chopped <b>input", "3"), (AFTER[2], "21"), ("oracle", "30")]),
        (ROWS, [], [(AFTER[0], "\N{MINUS SIGN}4.5"), (AFTER[2], "21")]),
        (ROWS[:1], [], [(AFTER[0], "\N{MINUS SIGN}4.5")]),
        (ROWS, BASELINES[:1], [("chopped <b>input", "3"), (AFTER[2], "21")]),
    ],
)
def test_the_page_begins_with_the_main_scores(tmp_path, rows, baselines, expected):
    """Those of the input, the model and the oracle, or of the first and the last checkpoint."""
    make_run(tmp_path / "run", rows, baselines)
    write(tmp_path / "run")
    page = (tmp_path / "run" / "index.html").read_text()
    found = re.findall(r"<dt>([^<]*)</dt>\s*<dd>(.*) <small>dB</small>", page)
    assert [tuple(map(html.unescape, pair)) for pair in found] == expected


def test_charts_label_at_most_eight_checkpoints(tmp_path):
    rows = [{**ROWS[0], "iteration": iteration} for iteration in range(10)]
    make_run(tmp_path / "run", rows)
    write(tmp_path / "run")
    page = (tmp_path / "run" / "index.html").read_text()
    labels = re.findall(r'y="196" text-anchor="middle">(\d+)<', page)
    assert labels == ["1", "3", "5", "7", "9"] * 3  # three charts
    units = re.findall(r'<text x="2" y="11">\[(.*?)\]<', page)
    assert units == [report.COLUMNS[name][1] for name in ("loss", "kl", "snr_db")]


@pytest.mark.parametrize("sounds", [True, False])
@pytest.mark.parametrize("losses", [["3.5"], ["3.5", "nan"], ["nan"]])
def test_page_of_a_run_with_few_or_no_finite_losses(tmp_path, losses, sounds):
    folder = tmp_path / "run"
    rows = [
        {"method": "DVAE", "iteration": 100 * i, "loss": loss, "kl": loss}
        for i, loss in enumerate(losses)
    ]
    make_run(folder, rows, [], sounds)
    write(folder)
    html = (folder / "index.html").read_text()
    assert "at the end of training" in html
    assert ("3.5" in html) == ("3.5" in losses) and ">nan<" not in html


def test_page_rounds_scores_and_shows_the_provenance(tmp_path):
    folder = tmp_path / "run"
    row = {"method": "DVAE", "iteration": 1234567, "loss": -1065.87654321, "kl": 3e-10}
    row["snr_db"] = 29.512345678901
    baselines = [{"method": "input", "snr_db": 0.0}, {"method": "oracle", "snr_db": 31.0}]
    make_run(folder, [row], baselines)
    config = json.loads((folder / "config.json").read_text())
    config["provenance"] = {
        "source": "<i>photos</i>",
        "images": 12345,
        "seconds": 0.1 + 0.2,
        "sha256": "ab" * 32,
        "versions": {"python": "3.99.1", "keras": None},
    }
    (folder / "config.json").write_text(json.dumps(config))
    write(folder)
    page = re.sub(r'"data:[^"]*"', '""', (folder / "index.html").read_text())
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page)
    for pair in (
        ("source", "&lt;i&gt;photos&lt;/i&gt;"),
        ("images", "12,345"),
        ("seconds", "0.3"),
        ("sha256", "ab" * 32),
        ("python", "3.99.1"),
    ):
        assert pair in itertools.pairwise(cells)
    assert "--provenance" not in page
    first = cells.index("1234567")
    scores = ["1234567", "\N{MINUS SIGN}1066", "3e\N{MINUS SIGN}10", "29.51"]
    assert cells[first : first + 4] == scores
    assert "29.512" not in page and "SNR of windows 29.51 dB" in page
    assert "<dt>input</dt>" not in page  # its score is 0 by definition


@pytest.mark.parametrize("value, shown", [(True, True), (False, False), (None, False), (0, True)])
def test_settings_that_are_on_are_listed(value, shown):
    assert ("<code>--some-flag</code>" in report._flags({"some_flag": value})) == shown


def test_tensorboard_reads_the_event_files(tmp_path, sound):
    out = tmp_path / "out"
    shutil.copytree(sound[0], out)
    config = json.loads((out / "config.json").read_text())
    assert config["command"].endswith(f"--seed 1 --out '{sound[0]}'")
    (out / "config.json").write_text(json.dumps({**config, "tensorboard": True}))
    head, *lines = (out / "scores.csv").read_text().splitlines()
    checkpoints = [line for line in lines if line.startswith("DVAE,")]
    # One call per checkpoint, as in a run, and the last one again, as when it is resumed.
    for last in (*range(1, len(checkpoints) + 1), len(checkpoints)):
        (out / "scores.csv").write_text("\n".join([head, *checkpoints[:last]]))
        write(out)
    (out / "scores.csv").write_text("\n".join([head, *lines]))
    write(out)
    assert embedded(out) == {path.read_bytes() for path in (*out.glob("*.png"), *out.glob("*.wav"))}
    page = (out / "index.html").read_text()
    assert page.count("(this run)") == 1  # only in the table of methods

    events = EventAccumulator(str(out), {"tensors": 0})
    events.Reload()
    tags = {
        tag: [(event.step, event.tensor_proto) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    with open(out / "scores.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["iteration"]]
    assert set(tags) >= {"loss", "nll", "kl", "train_loss", "snr_db", "gap_snr_db"}
    for name in rows[0].keys() - {"method", "iteration"}:
        written = [(int(row["iteration"]), float(row[name])) for row in rows if row[name] != "nan"]
        assert [(step, make_ndarray(proto)) for step, proto in tags.pop(name)] == [
            (step, pytest.approx(value, rel=1e-6)) for step, value in written
        ]
    plugins = {tag: events.SummaryMetadata(tag).plugin_data.plugin_name for tag in tags}
    assert plugins == {
        f"{name}.{end}": plugin
        for name in ("reconstruction", "generated")
        for end, plugin in (("png", "images"), ("wav", "audio"))
    }
    assert all([step for step, _ in steps] == [0, 100, 200] for steps in tags.values())


def test_missing_tensorboard_gives_one_line_with_the_remedy(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['tensorboard'] = None")
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was loaded')")
    flags = "--tensorboard", "--out", tmp_path / "out"
    done = run("mnist_dvae.py", *flags, PYTHONPATH=str(tmp_path))
    refused(done, "--tensorboard", "pip install tensorboard")
    assert not (tmp_path / "out").exists()


def test_methods_are_ranked_by_a_score_that_all_have():
    rows = [
        {"method": "input", "snr_db": "3", "long_snr_db": "3"},
        {"method": "filtered", "long_snr_db": "17"},
        {"method": "oracle", "snr_db": "31", "long_snr_db": "40"},
    ]
    ours = {"method": "DVAE", "snr_db": "30", "long_snr_db": "12"}
    ranked = report._ranked(ours, rows, "snr_db")
    assert [row["method"] for row in ranked] == ["input", "DVAE", "filtered", "oracle"]
    # If there is no such score, a method without the summary is the worst, even if lower is better.
    del rows[1]["long_snr_db"]
    for row, error in zip((ours, *rows), ("0.2", "0.9", "nan", "0")):
        row["mse"] = error
    ranked = report._ranked(ours, rows, "mse")
    assert [row["method"] for row in ranked] == ["filtered", "input", "DVAE", "oracle"]


@pytest.mark.parametrize("name, best, worst", [("mse", 0, 0.3), ("snr_db", "inf", 3)])
def test_the_worst_model_is_ranked_last_whatever_ties(name, best, worst):
    """Without damage, all baselines are perfect."""
    baselines = [{"method": method, name: str(best)} for method in ("input", "oracle")]
    ranked = report._ranked({"method": "DVAE", name: str(worst)}, baselines, name)
    assert [row["method"] for row in ranked] == ["DVAE", "input", "oracle"]


def test_restored_sound_is_embedded_and_deleted_by_overwrite(tmp_path):
    folder = tmp_path / "run"
    make_run(folder)
    for name, like in (("restored.png", "generated_000000.png"), ("restored.wav", "clean.wav")):
        (folder / name).write_bytes((folder / like).read_bytes() + name.encode())
    write(folder)
    for name in ("restored.png", "restored.wav"):
        assert (folder / name).read_bytes() in embedded(folder)
        assert any(fnmatch.fnmatch(name, pattern) for pattern in report.WRITTEN)


@pytest.mark.parametrize("megabytes, is_embedded", [(20, True), (45, False)])
def test_only_the_files_of_long_recordings_are_linked(tmp_path, megabytes, is_embedded):
    """A run of notes has up to 20 MB of them, and its page can be sent without other files."""
    folder = tmp_path / "run"
    make_run(folder)
    with open(folder / "clean.wav", "ab") as file:
        file.write(bytes(megabytes * 10**6))
    write(folder)
    page = (folder / "index.html").read_text()
    assert ("clean.wav" in page) != is_embedded and (len(page) > megabytes * 1e6) == is_embedded


@pytest.mark.parametrize(
    "name, title", [("hole_nats_a_pixel", "hole nats a pixel"), ("hole_nats_per_pixel", "NLL in")]
)
def test_columns_without_a_label_are_shown_by_name(tmp_path, name, title):
    """Runs of older versions may have such columns."""
    row = {"method": "DVAE", "iteration": 0, "loss": 1, name: 0.125}
    make_run(tmp_path / "run", [row], [{"method": "originals", name: 0}], sounds=False)
    write(tmp_path / "run")
    page = (tmp_path / "run" / "index.html").read_text()
    assert f'<th scope="col">{title}' in page and "<td>0.125</td>" in page


def test_a_score_that_only_one_method_has_is_shown(tmp_path):
    """Only refined digits have a predictive standard deviation, so only they can be calibrated."""
    baselines = [{"method": "holes black", "mse": 0.5}]
    baselines += [{"method": "DVAE, refined", "mse": 0.25, "hole_error_over_std": 1.125}]
    row = {"method": "DVAE", "iteration": 0, "loss": 1, "mse": 0.375, "hole_error_over_std": ""}
    make_run(tmp_path / "run", [row], baselines, sounds=False)
    write(tmp_path / "run")
    table = (tmp_path / "run" / "index.html").read_text().split("<table>")[1].split("</table>")[0]
    assert "error in the hole over predictive std" in table and "held-out loss" not in table
    cells = [re.findall(r"<td>(.*?)</td>", line) for line in table.split("<tr")[2:]]
    assert cells == [["0.5", ""], ["0.375", ""], ["0.25", "1.125"]]


@pytest.mark.parametrize("sounds, thing", [(True, "windows of sound"), (False, "images")])
def test_page_names_the_examples_and_their_corruption(tmp_path, sounds, thing):
    make_run(tmp_path / "run", sounds=sounds)
    write(tmp_path / "run")
    text = (tmp_path / "run" / "index.html").read_text().replace("\n", " ")
    assert f"gets corrupted {thing} (<code>block 0.2</code>)" in text
    config = json.loads((tmp_path / "run/config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps({**config, "noise": 0.4}))
    write(tmp_path / "run")
    text = (tmp_path / "run" / "index.html").read_text()
    assert "(<code>block 0.2, noise up to 0.4</code>)" in text
