"""play.html, used in Chromium like a person would. Its results are compared with Python's."""

import base64
import io
import math

import numpy as np
import pytest
import soundfile
from commands import until
from PIL import Image

import audio_utils
import inference
from files.image_files import load_images
from files.model_file import load_model
from files.sound_reader import open_sound
from harness.quiet_tensorflow import tf
from models import DVAE
from pages import play, report
from signals.gaps import GAP_SECONDS, find_gaps

CLOSE = 2e-3  # the page has the weights in half precision
RESET = """
    history.replaceState(null, "", arguments[0] || "#");
    document.activeElement.blur();
    if (element("draw")) {
      element("draw").checked = true;
    } else {
      element("more").checked = false;
      cutter.chosen = -1;
      player.stop();
    }
    states.start();"""


@pytest.fixture(scope="module")
def models(digits, sound):
    return {"digits": load_model(digits[0]), "sound": load_model(sound[0])}


@pytest.fixture
def browse(chromium):
    """Open a page in a state. If the page is already open, reset it instead of loading it again.

    At the end, check that the page wrote nothing to the console and requested nothing.
    """

    def browse(path, state="", reload=False):
        if reload or chromium.current_url.partition("#")[0] != path.as_uri():
            chromium.get("about:blank")  # a change of the fragment alone does not load a page
            chromium.get(path.as_uri() + state)
        else:
            chromium.execute_script(RESET, state)
        return chromium

    chromium.get_log("browser")
    yield browse
    loaded = chromium.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert [name for name in loaded if not name.startswith("blob:")] == []
    assert chromium.get_log("browser") == []


@pytest.fixture
def digit_page(browse, digits):
    return lambda state="", reload=False: browse(digits[0] / "play.html", state, reload)


@pytest.fixture
def sound_page(browse, sound):
    def open_page(state="#notes=C4", reload=False):
        browser = browse(sound[0] / "play.html", state, reload)
        until(lambda: is_restored(browser))
        return browser

    return open_page


def numbers(browser, script, *arguments):
    """Evaluate a JavaScript expression in the page and return its numbers as an array."""
    script = f"""
        const bytes = new Uint8Array(Float32Array.from({script}).buffer);
        return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""))"""
    coded = browser.execute_script(script, *arguments)
    return np.frombuffer(base64.b64decode(coded), np.float32)


def base64_of(content):
    return base64.b64encode(content).decode()


def is_restored(browser):
    return browser.execute_script("return Boolean(shown.restored) && !worker.timer")


def seen_and_drawn(browser, model):
    """Return the network's input and output. Check them against Keras and the canvas."""
    seen = numbers(browser, "made.seen").reshape(28, 28)
    drawn = numbers(browser, "made.output").reshape(28, 28)
    expected = model.reconstruct(seen.reshape(1, -1)).numpy().reshape(28, 28)
    assert drawn == pytest.approx(expected, abs=CLOSE)
    assert levels_on(browser, "output") == pytest.approx(drawn, abs=1 / 255)
    return seen, drawn


def levels_on(browser, name):
    """Return the levels on a canvas (28, 28), from the middle of each enlarged pixel."""
    address = browser.execute_script("return element(arguments[0]).toDataURL()", name)
    picture = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    return np.array(picture.convert("L"))[8::16, 8::16] / 255


def drag(browser, name, *places):
    """Drag the mouse over an element from place to place, in fractions of its width and height."""
    from selenium.webdriver import ActionChains

    target = browser.find_element("id", name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", target)
    size = target.size["width"], target.size["height"]
    start, *moves = np.rint((np.array(places) - 0.5) * size).astype(int).tolist()
    actions = ActionChains(browser, duration=20)
    actions.move_to_element_with_offset(target, *start).click_and_hold()
    for move in moves:
        actions.move_to_element_with_offset(target, *move)
    actions.release().perform()


def press(browser, name, *keys):
    browser.find_element("id", name).send_keys(*keys)


def click(browser, name):
    target = browser.find_element("id", name)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", target)
    target.click()


@pytest.mark.parametrize("kind", ["digits", "sound"])
def test_the_network_equals_keras(kind, models, digit_page, sound_page):
    model = models[kind]
    if kind == "digits":
        browser = digit_page()
        inputs = load_images().test[:100].reshape(100, -1) / np.float32(255)
        images = numbers(browser, "images.subarray(0, 100 * 784)")
        assert images == pytest.approx(inputs.ravel(), abs=1e-6)
    else:
        browser = sound_page()
        inputs = audio_utils.Notes().windows("held out", 100, (0, 3))[1].numpy()
    array, content = "new Float32Array(bytesOf(arguments[0]).buffer)", base64_of(inputs.tobytes())
    ours = numbers(browser, f"reconstruct(network, {array})", content)
    assert ours == pytest.approx(model.reconstruct(inputs).numpy().ravel(), abs=CLOSE)
    codes = numbers(browser, f"encode(network, {array})", content)
    mean = model.encode(inputs)[0].numpy().ravel()
    assert codes == pytest.approx(mean, abs=1e-2) and np.std(mean) > 0.1


@pytest.mark.parametrize("kind", ["digits", "sound"])
def test_the_prior_equals_keras(kind, models, digit_page, sound_page):
    browser, model = {"digits": digit_page, "sound": sound_page}[kind](), models[kind]
    draw = "Array.from({length: 4000}, (_, i) => [...samplePrior(network, randomBy(i))]).flat()"
    theirs = model.sample_prior(4000, (0, 1)).numpy()
    ours = numbers(browser, draw).reshape(theirs.shape)
    assert ours.mean(0) == pytest.approx(theirs.mean(0), abs=0.12)
    assert ours.std(0) == pytest.approx(theirs.std(0), rel=0.12)
    density = [model.log_prior(z).numpy() for z in (ours, theirs)]
    assert density[0].mean() == pytest.approx(density[1].mean(), abs=float(0.1 * density[1].std()))


def test_drawing_and_erasing_by_mouse(models, digit_page):
    browser, model = digit_page("#own"), models["digits"]
    assert not seen_and_drawn(browser, model)[0].any()
    drag(browser, "picture", (0.2, 0.2), (0.2, 0.5))
    drag(browser, "picture", (0.2, 0.5), (0.4, 0.5))
    seen, _ = seen_and_drawn(browser, model)
    rows, columns = np.nonzero(seen)
    assert 19 <= np.ptp(rows) + 1 <= 21 and seen.max() == pytest.approx(1)
    center = [(np.arange(28) + 0.5) @ seen.sum(axis) / seen.sum() for axis in (1, 0)]
    assert center == pytest.approx([14, 14], abs=0.3)  # center of mass in the middle, as in MNIST
    click(browser, "erase")
    drag(browser, "picture", (0.3, 0.5), (0.4, 0.5))
    shorter, _ = seen_and_drawn(browser, model)
    assert np.ptp(np.nonzero(shorter)[1]) < np.ptp(columns)

    browser = digit_page("#held=7")
    whole, _ = seen_and_drawn(browser, model)
    click(browser, "erase")
    drag(browser, "picture", (0.1, 0.5), (0.9, 0.5))
    erased, _ = seen_and_drawn(browser, model)
    assert whole[13:15].any() and not erased[13:15, 4:24].any()
    around = np.r_[:11, 17:28]
    assert np.array_equal(whole[around], erased[around])  # a held-out digit is not centered again


def test_the_hole_by_keyboard(models, digit_page):
    from selenium.webdriver import Keys

    browser, model = digit_page("#held=7&hole=9,9,8,8"), models["digits"]
    original = load_images().test[7] / 255
    seen, _ = seen_and_drawn(browser, model)
    hole = np.zeros((28, 28), bool)
    hole[9:17, 9:17] = True
    assert not seen[hole].any() and np.allclose(seen[~hole], original[~hole])
    press(browser, "seen", Keys.LEFT, Keys.UP, Keys.UP, Keys.SHIFT + Keys.DOWN + Keys.NULL)
    assert browser.execute_script("return state.hole") == [8, 7, 8, 9]
    assert not seen_and_drawn(browser, model)[0][7:16, 8:16].any()
    press(browser, "seen", Keys.DELETE)
    whole, _ = seen_and_drawn(browser, model)
    assert np.allclose(whole, original)


FIRST_SEEN = {
    "digits": "hole another picture seen output refined completion-1 completion-4 uncertainty",
    "sound": "input-play restored-play chop input-wave restored-wave restored-spectrum",
}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", FIRST_SEEN)
def test_the_first_view_fits_on_the_screen(width, kind, chromium, digit_page, sound_page):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 1000}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser = {"digits": digit_page, "sound": sound_page}[kind]("#")
    boxes = [browser.find_element("id", name).rect for name in FIRST_SEEN[kind].split()]
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    for box in boxes:
        assert min(box["width"], box["height"]) > 20 and box["y"] + box["height"] <= 800
        assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_the_pages_open_with_damage(models, digit_page, sound_page):
    browser = digit_page("#")
    number, (x, y, width, height) = browser.execute_script("return [state.number, state.hole]")
    seen, _ = seen_and_drawn(browser, models["digits"])
    inside = np.s_[y : y + height, x : x + width]
    assert not seen[inside].any() and (load_images().test[number][inside] > 128).sum() > 5
    assert width * height == pytest.approx(0.2 * 784, rel=0.1)
    browser = sound_page("#")
    assert browser.execute_script("return state.tune") == list(audio_utils.C_MAJOR)
    corrupted = numbers(browser, "shown.input.channels[0]")
    assert np.mean(corrupted == 0) == pytest.approx(0.2, abs=0.01)


def test_refined_and_uncertainty_equal_python(models, digit_page):
    """Give the page and Python the same draws. The page has the weights in half precision."""
    browser, model = digit_page("#held=164&hole=6,11,11,14"), models["digits"]
    corrupted, observed = (numbers(browser, f"made.{name}")[None] for name in ("seen", "observed"))
    assert not observed.reshape(28, 28)[11:25, 6:17].any() and observed.sum() == 784 - 11 * 14
    mean, log_var = model.encode(corrupted)
    starts = np.concatenate([mean, model.sample_prior(3, (0, 1))])
    log_vars = np.repeat(log_var, 4, 0)
    refine = inference.refiner(model)
    means, log_vars, elbo = refine(*(np.repeat(a, 4, 0) for a in (corrupted, observed)), starts,
                                   log_vars)  # fmt: skip
    script = """(() => {
        const model = differentiable({network, constants: data.constants});
        const example = {corrupted: made.seen, observed: made.observed}, latent = network.latent;
        const own = forward(network.encoder, made.seen).subarray(latent);
        return arguments[0].flatMap(start => {
            const {elbo, posterior} = refine(model, example, [...start, ...own]);
            return [elbo, ...posterior];
        });
    })()"""
    ours = numbers(browser, script, starts.tolist()).reshape(4, -1)
    print(ours[:, 0], elbo)
    assert ours[:, 0] == pytest.approx(elbo.numpy(), abs=0.3)
    drawn, expected = (model.expectation(np.float32(z)).numpy() for z in (ours[:, 1:33], means))
    print(np.abs(drawn - expected).max(1))
    assert drawn == pytest.approx(expected, abs=1e-2)
def test_the_hole_by_mouse_then_undo_and_the_address(models, digit_page):
    browser, model = digit_page("#held=3"), models["digits"]
    whole, before = seen_and_drawn(browser, model)
    drag(browser, "seen", (0.25, 0.25), (0.5, 0.75))
    assert browser.execute_script("return state.hole") == [7, 7, 7, 14]
    drag(browser, "seen", (0.3, 0.3), (0.4, 0.4))
    drag(browser, "seen", (0.6, 0.85), (0.7, 0.7))
    x, y, width, height = browser.execute_script("return state.hole")
    assert [x, y, x + width, y + height] == pytest.approx([10, 10, 20, 20], abs=1)
    drag(browser, "picture", (0.1, 0.1), (0.9, 0.1))
    seen, drawn = seen_and_drawn(browser, model)
    until(lambda: "hole=" in browser.current_url and "strokes=" in browser.current_url)
    state = browser.current_url.partition("#")[2]
    browser = digit_page("#" + state, reload=True)
    again = seen_and_drawn(browser, model)
    assert np.array_equal(again[0], seen) and np.array_equal(again[1], drawn)

    browser = digit_page("#held=3")
    click(browser, "hole")
    drag(browser, "picture", (0.1, 0.1), (0.9, 0.1))
    for _ in range(2):
        click(browser, "undo")
    seen, drawn = seen_and_drawn(browser, model)
    assert np.array_equal(seen, whole) and np.array_equal(drawn, before)
    assert not browser.find_element("id", "undo").is_enabled()


@pytest.mark.parametrize(
    "state", ["#held=99999&hole=a,b&z=1,2&strokes=p1_e2,x", "#own&strokes=<b>", "#new=-1&%"]
)
def test_a_malformed_address_still_shows_a_page(models, digit_page, state):
    seen_and_drawn(digit_page(state), models["digits"])


def test_latent_sliders_map_and_interpolation(models, digit_page):
    from selenium.webdriver import ActionChains, Keys

    browser, model = digit_page("#held=2"), models["digits"]
    bars = browser.find_elements("css selector", "#bars input")
    assert len(bars) == model.latent
    bars[4].send_keys(Keys.END)
    z = numbers(browser, "made.z")
    own = model.encode(load_images().test[2].reshape(1, -1) / np.float32(255))[0].numpy()[0]
    assert np.delete(z, 4) == pytest.approx(np.delete(own, 4), abs=1e-2) and z[4] > own[4] + 0.5
    output = numbers(browser, "made.output")
    assert output == pytest.approx(model.expectation(z[None]).numpy()[0], abs=CLOSE)

    browser.execute_script("Object.assign(element('weight'), {value: 0.24}).focus()")
    press(browser, "weight", Keys.RIGHT)
    ends = model.encode(load_images().test[[3, 17]].reshape(2, -1) / np.float32(255))[0].numpy()
    assert numbers(browser, "made.z") == pytest.approx(0.75 * ends[0] + 0.25 * ends[1], abs=1e-2)

    place = browser.execute_script("""
        const box = map.canvas.getBoundingClientRect();
        map.canvas.scrollIntoView({block: "center"});
        const [x, y] = map.pixelOf(map.points[11]);
        return [x - box.width / 2, y - box.height / 2]""")
    target = browser.find_element("id", "map")
    ActionChains(browser).move_to_element_with_offset(target, *map(round, place)).perform()
    assert "Nearest: no." in browser.find_element("id", "near").text
    # At an example's point, the decoded code is almost the example's own.
    between = numbers(browser, "map.between(map.points[11])")
    assert between == pytest.approx(numbers(browser, "map.code(11)"), abs=0.02)
    ActionChains(browser).click().perform()
    number = browser.execute_script("return state.number")
    nearest = browser.execute_script("return map.nearest(map.cursor)[0][1]")
    seen, _ = seen_and_drawn(browser, model)
    assert number == nearest and np.allclose(seen, load_images().test[number] / 255)


def test_buttons_for_another_digit(models, digit_page):
    browser = digit_page("#held=2")
    for name, start in (("another", "Held-out"), ("new", "New"), ("clear", "Your drawing")):
        click(browser, name)
        seen_and_drawn(browser, models["digits"])
        assert browser.find_element("id", "from").text.startswith(start)


def test_a_stroke_takes_at_most_30_ms(digit_page):
    browser = digit_page("#held=4")
    drag(browser, "picture", *[(0.1 + 0.02 * i, 0.4) for i in range(30)])
    script = """
        const start = performance.now();
        penTo(60, 60 + arguments[0]);
        return performance.now() - start"""
    times = [browser.execute_script(script, i) for i in range(20)]
    assert np.median(times) <= 30


def test_a_chopped_scale_is_restored_as_in_python(models, sound_page):
    browser, model = sound_page("#notes=C4,D4,E4,F4,G4,A4,B4&noise=0.2"), models["sound"]
    click(browser, "chop")
    until(lambda: is_restored(browser))
    tone = numbers(browser, "cleanSound(randomBy(1))")
    corrupted, ours = (
        numbers(browser, f"shown.{which}.channels[0]") for which in ("input", "restored")
    )
    mask = np.zeros(tone.size)
    for start, end in browser.execute_script("return state.gaps"):
        mask[start:end] = 1
    assert mask.mean() == pytest.approx(0.2, abs=0.01) and not corrupted[mask == 1].any()
    assert np.std((corrupted - tone)[mask == 0]) == pytest.approx(audio_utils.NOISE_STD, rel=0.03)
    window, hop = model.input_size, model.input_size // inference.HOPS_PER_WINDOW
    theirs = inference.restore_long(corrupted, mask, model.reconstruct, window, hop)
    snr = [audio_utils.snr_db(tone, estimate) for estimate in (ours, theirs, corrupted)]
    assert snr[0] == pytest.approx(snr[1], abs=0.2) and snr[0] > snr[2] + 3
    assert ours == pytest.approx(theirs, abs=2e-2) and np.sqrt(np.mean((ours - theirs) ** 2)) < 2e-3
    milliseconds = browser.execute_script("""
        const {channels, rate} = sound, start = performance.now();
        const job = {channels, gaps: gapsOf(), rate, rms: null};
        await new Promise(done => restorer.ask(job, done));
        return performance.now() - start""")
    assert milliseconds / 1000 < tone.size / 16000  # faster than real time


def test_notes_and_gaps_by_mouse_and_keyboard(sound_page):
    from selenium.webdriver import Keys

    browser = sound_page("#notes=C4,E4")
    browser.find_element("css selector", "#keys button:nth-child(3)").click()
    assert browser.execute_script("return state.tune") == ["E4"]
    browser.find_element("tag name", "body").send_keys("g")
    assert browser.execute_script("return [state.tune, player.source !== null]") == [["G4"], True]
    drag(browser, "input-wave", (0.25, 0.5), (0.5, 0.5))
    drawn = browser.execute_script("return state.gaps")
    assert np.array(drawn) / 8000 == pytest.approx(np.array([[0.25, 0.5]]), abs=0.01)
    drag(browser, "input-wave", (0.3, 0.5), (0.5, 0.5))
    moved = browser.execute_script("return state.gaps")
    assert np.array(moved) / 8000 == pytest.approx(np.array([[0.45, 0.7]]), abs=0.015)
    press(browser, "input-wave", Keys.RIGHT, Keys.SHIFT + Keys.LEFT + Keys.NULL)
    assert browser.execute_script("return state.gaps") == [[moved[0][0] + 40, moved[0][1]]]
    assert not numbers(browser, "shown.input.channels[0].slice(...state.gaps[0])").any()
    press(browser, "input-wave", Keys.DELETE, Keys.ENTER)
    assert browser.execute_script("return state.gaps") == [[4000, 4200]]
    click(browser, "undo")
    click(browser, "restored-play")
    until(lambda: is_restored(browser))
    browser.execute_script("player.stop()")


def write_wav(path, rate, channels, seconds=0.6, level=0.3, **kind):
    """Write a WAV file of one note per channel, with a gap in the middle and silence at the end."""
    time = np.arange(round(seconds * rate)) / rate
    values = np.stack([np.sin(2 * np.pi * f * time) for f in (261.63, 392.0)[:channels]], 1) * level
    values[len(time) // 2 : len(time) // 2 + rate // 100] = values[len(time) * 3 // 4 :] = 0
    soundfile.write(path, values, rate, **kind)
    return values


def test_wav_files_are_read_as_by_libsndfile(tmp_path, sound_page):
    browser = sound_page()
    kinds = ("PCM_U8 WAV", "PCM_16 WAV", "PCM_24 WAVEX", "PCM_32 WAV", "FLOAT WAVEX", "DOUBLE WAV")
    for subtype, form in map(str.split, kinds):
        write_wav(tmp_path / "a.wav", 11025, 2, 0.05, subtype=subtype, format=form)
        script = """
            const wav = readWav(bytesOf(arguments[0]).buffer);
            return [wav.rate, ...wav.channels.map(values => [...values])]"""
        content = (tmp_path / "a.wav").read_bytes()
        rate, *channels = browser.execute_script(script, base64_of(content))
        expected, _ = soundfile.read(tmp_path / "a.wav")
        assert rate == 11025 and np.array(channels).T == pytest.approx(expected, abs=1e-7)


def test_gaps_in_a_wav_are_found_as_in_python(tmp_path, sound_page):
    """Compare runs of zeros of many lengths, with and without jumps at their ends."""
    browser, rng = sound_page(), np.random.default_rng(0)
    for rate, subtype in ((16000, "FLOAT"), (44100, "PCM_16"), (1000, "PCM_24")):
        longest, least = 1024 / 16000 * rate, math.ceil(GAP_SECONDS * rate)
        lengths = [1, least - 1, least, least + 1, int(longest / 2), int(longest), int(longest) + 1]
        pieces = []
        for length in [least, *rng.choice(lengths, 200), least]:  # zeros at both ends too
            levels = np.ones(20)
            levels[[0, -1]] = rng.choice([0.001, 0.009, 0.011, 0.5], 2)
            pieces += [np.zeros(length), levels]
        signal = np.concatenate(pieces[:-1])
        values = np.stack([signal, np.roll(signal, 7)], 1)
        soundfile.write(tmp_path / "a.wav", 0.8 * values, rate, subtype)
        with open_sound(tmp_path / "a.wav") as sound:
            gaps, silences, _ = find_gaps(sound.blocks(), 2, rate, longest)
        script = """
            const {rate, channels} = readWav(bytesOf(arguments[0]).buffer);
            return channels.map(values => findGaps(values, rate))"""
        found = browser.execute_script(script, base64_of((tmp_path / "a.wav").read_bytes()))
        for ours, channel_gaps, channel_silences in zip(found, gaps, silences):
            assert ours["gaps"] == channel_gaps.tolist() and len(channel_gaps) > 20
            assert ours["silences"] == channel_silences.tolist() and len(channel_silences) > 10


DROP = """
    const dataTransfer = new DataTransfer(), [content, name] = arguments;
    dataTransfer.items.add(new File([bytesOf(content)], name));
    document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true}))"""


def test_a_restored_wav_keeps_its_format_length_and_level(tmp_path, sound_page):
    browser = sound_page()
    here = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", here)
    for rate, channels, subtype in ((44100, 2, "PCM_24"), (16000, 1, "PCM_16")):
        path = tmp_path / f"mine {rate}.wav"
        written = write_wav(path, rate, channels, level=0.05, subtype=subtype)
        # The file arrives before the previous sound's spectrogram is drawn.
        browser.execute_script("draw('restored'); shown.restored = null")
        if channels == 2:
            press(browser, "file", str(path))
        else:
            browser.execute_script(DROP, base64_of(path.read_bytes()), path.name)
        until(lambda: is_restored(browser))
        click(browser, "download")
        result = tmp_path / f"mine {rate}-restored.wav"
        until(result.exists)
        info = soundfile.info(result)
        kept = (info.samplerate, info.channels, info.subtype, info.frames)
        assert kept == (rate, channels, subtype, len(written))
        values, _ = soundfile.read(result, always_2d=True)
        inside = slice(len(written) // 8, len(written) * 3 // 8)
        for ours, theirs in zip(values[inside].T, written[inside].T):
            assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.2)  # level preserved
            assert np.corrcoef(ours, theirs)[0, 1] > 0.9
        hole = slice(len(written) // 2, len(written) // 2 + rate // 100)
        assert np.std(values[hole]) > 0.5 * np.std(written)
        assert np.abs(values[-len(written) // 5 :]).max() == 0  # silence preserved
    (tmp_path / "none.wav").write_bytes(b"RIFF, but no sound at all")
    press(browser, "file", str(tmp_path / "none.wav"))
    until(lambda: "not a WAV file" in browser.find_element("id", "own-says").text)


def test_a_drag_over_the_map_glides_without_a_dip(sound_page):
    browser = sound_page()
    script = """(() => {
        const glide = new Glide(), parts = [];
        const ends = ["C4", "G4"].map(name => map.labels.indexOf(map.names.indexOf(name)));
        for (let i = 0; i < 500; i++) parts.push(glide.step(ends[i < 250 ? 0 : 1]));
        return parts.flatMap(part => [...part]);
    })()"""
    signal = numbers(browser, script)
    assert abs(signal.size - 32000) < 2048
    for part, frequency in ((signal[2000:10000], 261.63), (signal[-10000:-2000], 392.0)):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(part.size), 2**17))
        assert np.argmax(spectrum) * 16000 / 2**17 == pytest.approx(frequency, rel=0.01)
    levels = 10 * np.log10(np.convolve(signal**2, np.full(800, 1 / 800), "valid"))
    assert np.ptp(levels) < 3  # no dip between the notes
    drag(browser, "map", (0.3, 0.3), (0.5, 0.5), (0.7, 0.6))
    until(lambda: not browser.execute_script("return gliding.timer"))


def test_narrow_screens_and_accessible_names(chromium, digit_page, sound_page):
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    for page in (digit_page, sound_page):
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        browser = page(reload=True)
        widths = browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert widths == [360, 360]
        controls = browser.execute_script("""
            const controls = [...document.querySelectorAll("button, input, canvas, a")];
            return controls.filter(each => each.checkVisibility())""")
        assert all(each.accessible_name for each in controls[-40:])
        levels = [int(h.tag_name[1]) for h in browser.find_elements("css selector", "h1, h2, h3")]
        assert levels[0] == 1 and levels.count(1) == 1


def test_the_page_is_linked_small_and_private(digits, sound):
    for (out, _), most in ((digits, 6e6), (sound, 4e6)):
        page = (out / "play.html").read_text()
        assert 'href="play.html"' in (out / "index.html").read_text()
        assert len(page) < most and "held out of training" in page
        assert not [text for text in (str(out.parent), "http:", "https:") if text in page]
    assert "play.html" in report.WRITTEN


def test_a_large_or_broken_model_gets_no_page(capsys, monkeypatch):
    model = DVAE(64, "bernoulli", (8,), 4, 3, metadata={"shape": [8, 8], "data": None})
    clean = np.zeros((5, 8, 8))
    assert set(play.files(model, clean)) == {"play.html"} and not capsys.readouterr().out
    model.prior_logits.assign([np.nan, 0, 0])
    assert play.files(model, clean) == {}
    assert "play.html is not written" in capsys.readouterr().out
    model.prior_logits.assign([0, 0, 0])
    monkeypatch.setattr(play, "MOST_WEIGHTS", 1000)
    assert play.files(model, clean) == {} and "more than the 1,000" in capsys.readouterr().out


def test_images_of_another_shape_without_labels(tmp_path, browse):
    tf.keras.utils.set_random_seed(0)
    metadata = {"shape": [12, 20], "data": "/home/me/secret"}
    model = DVAE(12 * 20, "bernoulli", (16,), 1, 3, metadata=metadata)
    clean = np.random.default_rng(0).random((40, 12, 20), np.float32)
    play.write(tmp_path / "play.html", model, clean)
    assert "secret" not in (tmp_path / "play.html").read_text()
    browser = browse(tmp_path / "play.html", "#own")
    drag(browser, "picture", (0.1, 0.1), (0.5, 0.1))
    seen = numbers(browser, "made.seen").reshape(12, 20)
    assert seen[1, 2:10].min() > 0.5 and not seen[4:].any()  # neither moved nor scaled
    expected = model.reconstruct(seen.reshape(1, -1)).numpy()[0]
    assert numbers(browser, "made.output") == pytest.approx(expected, abs=CLOSE)
    assert browser.find_element("id", "legend").text == ""
    assert "image" in browser.find_element("tag name", "h1").text


def test_a_model_of_recordings_shows_held_out_windows(tmp_path, browse):
    tf.keras.utils.set_random_seed(0)
    metadata = {"experiment": "sound", "sample_rate": 4000, "rms": 0.2}
    model = DVAE(256, "gaussian", (16,), 6, 3, metadata=metadata)
    rng = np.random.default_rng(0)
    clean, long_sound = rng.normal(size=(30, 256)).astype(np.float32), rng.normal(size=3000)
    play.write(tmp_path / "play.html", model, clean, None, long_sound)
    browser = browse(tmp_path / "play.html")
    until(lambda: is_restored(browser))
    assert numbers(browser, "shown.input.channels[0]") == pytest.approx(long_sound, abs=2e-3)
    assert browser.find_elements("id", "keys") == []
    assert "private" in browser.find_element("tag name", "footer").text
    browser.execute_script("""
        element("window").value = 7;
        element("window").dispatchEvent(new Event("change"))""")
    until(
        lambda: is_restored(browser) and numbers(browser, "shown.restored.channels[0]").size == 256
    )
    expected = model.reconstruct(clean[7:8]).numpy()[0]
    assert numbers(browser, "shown.restored.channels[0]") == pytest.approx(expected, abs=CLOSE)
    drag(browser, "map", (0.4, 0.4), (0.6, 0.6))
    until(lambda: not browser.execute_script("return gliding.timer"))
