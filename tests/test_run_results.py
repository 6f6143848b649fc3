"""Scores, pictures and sounds of a run, recomputed from its saved model by other code."""

import base64
import csv
import json
import math
import re

import numpy as np
import pytest
import scipy.signal
import scipy.special
import scipy.stats
import soundfile
from both_scripts import FEWER
from commands import fewer_examples
from PIL import Image

import audio_utils
import baselines
import inference
import mnist_dvae
import sound_dvae
from files.image_files import load_images
from files.model_file import load_model
from harness.quiet_tensorflow import tf
from pages import sound_figures
from signals import fill_gaps, noise
from signals.levels import at_trained_level

RATE, WINDOW, SEED = 16000, 1024, 1  # of the run of sounds
HELD_OUT, PRIOR = (20261123, 3), 2  # seeds of held-out noise and of samples from the prior


def table(folder):
    """Return {(method, iteration or None): scores} of a run."""
    with open(folder / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        (row.pop("method"), row.pop("iteration") or None): {
            name: float(value) for name, value in row.items() if value
        }
        for row in rows
    }


def effective_number(labels):
    _, counts = np.unique(labels, return_counts=True)
    return float(np.exp(scipy.stats.entropy(counts)))


def nll_and_kl(model, corrupted, clean):
    """Return the NLL and the KL estimate of held-out examples by SciPy's densities."""
    drawn = tf.random.stateless_normal((len(clean), model.latent), HELD_OUT)
    parts = model(corrupted, noise=drawn)
    decoded, z, mean, log_var = (part.numpy().astype(float) for part in parts)
    if model.likelihood == "gaussian":
        nll = -scipy.stats.norm.logpdf(clean, decoded, np.exp(float(model.log_std))).sum(1)
    else:
        p = scipy.special.expit(decoded)
        nll = -(scipy.special.xlogy(clean, p) + scipy.special.xlog1py(1 - clean, -p)).sum(1)
    posterior = scipy.stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(1)
    log_prior = []
    weights = scipy.special.log_softmax(model.prior_logits.numpy().astype(float))
    for weight, center, log_vars in zip(weights, model.prior_means, model.prior_log_vars):
        std = np.exp(np.array(log_vars) / 2)
        log_prior.append(weight + scipy.stats.norm.logpdf(z, np.array(center), std).sum(1))
    return nll.mean(), (posterior - scipy.special.logsumexp(log_prior, axis=0)).mean()


def snr(reference, estimate):
    return 10 * np.log10(np.sum(reference**2.0) / np.sum((reference - estimate) ** 2.0))


def levels(signal):
    """Return the levels (F, K) in dB of Hann frames of 1,024 samples."""
    *_, spectra = scipy.signal.stft(signal, RATE, "hann", 1024, 768, padded=False, boundary=None)
    return 20 * np.log10(np.maximum(2 * np.abs(spectra), 1e-4))


def sinusoids(chopped, observed, note):
    """Fit one sinusoid to the observed samples of each row by least squares: (B, N)."""
    angle = 2 * np.pi * audio_utils.note_frequency(note) * np.arange(chopped.shape[1]) / RATE
    basis = np.stack([np.sin(angle), np.cos(angle)])
    products = np.stack([one * other for one in basis for other in basis])
    normal = (observed @ products.T).reshape(-1, 2, 2)
    right = (observed * chopped) @ basis.T
    return np.linalg.solve(normal + 1e-12 * np.eye(2), right[:, :, None])[:, :, 0] @ basis


def best_sinusoids(chopped, observed):
    """Return the best fit of a note to each row (B, N), and the note's index (B,)."""
    fits = np.stack([sinusoids(chopped, observed, note) for note in audio_utils.C_MAJOR])
    best = (observed * (chopped - fits) ** 2).sum(2).argmin(0)
    return fits[best, np.arange(len(chopped))], best


def oracle_of_the_scale(corrupted, observed):
    """Fit the right note to each half second without its fades of 2 ms: (T,)."""
    size, ramp = RATE // 2, 32
    gain = np.ones(size)
    gain[:ramp] = np.sin(np.pi / 2 * (np.arange(ramp) + 0.5) / ramp) ** 2
    gain[-ramp:] = gain[:ramp][::-1]
    fitted = observed.reshape(-1, size) * (gain == 1)
    parts = zip(corrupted.reshape(-1, 1, size), fitted[:, None], audio_utils.C_MAJOR)
    return np.concatenate([sinusoids(*part)[0] * gain for part in parts])


def noise_removed(sound, std):
    """Subtract twice the known power of the noise from each spectrum: (T,) -> (T,)."""
    taper = scipy.signal.windows.hann(2048, sym=False)
    frames = scipy.signal.ShortTimeFFT(taper, 512, RATE)
    spectra = frames.stft(sound)
    power = np.abs(spectra) ** 2
    kept = np.maximum(0, power - 2 * std**2 * np.sum(taper**2)) / power
    return frames.istft(spectra * kept, k1=sound.size)


@pytest.fixture(scope="module")
def sounds(sound):
    """Return the run's folder, its model and its held-out sounds."""
    settings = sound_dvae.Settings(seed=SEED)
    with fewer_examples(FEWER):
        held = sound_dvae.held_out(settings, sound_dvae.load(settings))
    return sound[0], load_model(sound[0]), held


def restored_long(held, reconstruct):
    sound, mask = held.long.corrupted, held.long.mask
    return inference.restore_long(sound, mask, reconstruct, WINDOW, WINDOW // 8)


def scores_of(held, windows, long):
    """Return the six scores of an estimate of the held-out sounds."""
    found, (shown, whole, _) = {}, held
    if windows is not None:
        reference, gaps = (part[: len(windows)] for part in (shown.reference, shown.mask == 1))
        found["snr_db"] = snr(reference, windows)
        found["gap_snr_db"] = snr(reference[gaps], windows[gaps])
    reference, gaps = whole.reference, whole.mask == 1
    found["long_snr_db"] = snr(reference, long)
    found["long_gap_snr_db"] = snr(reference[gaps], long[gaps])
    scale = reference @ long / (reference @ reference)
    found["long_si_sdr_db"] = snr(scale * reference, long)
    difference = levels(reference) - levels(long)
    found["long_lsd_db"] = np.sqrt((difference**2).mean(0)).mean()
    return found


def test_rows_of_sound_baselines_are_recomputed(sounds):
    folder, _, held = sounds
    (corrupted, _, mask, _), long = held.windows, held.long
    time, lines = np.arange(WINDOW), corrupted.astype(float)
    for row, missing in zip(lines, mask == 1):
        row[missing] = np.interp(time[missing], time[~missing], row[~missing])
    time, line = np.arange(long.mask.size), long.corrupted.astype(float)
    missing = long.mask == 1
    line[missing] = np.interp(time[missing], time[~missing], line[~missing])
    continued = baselines.autoregress(corrupted[:16], mask[:16])
    filled = fill_gaps.fill(long.corrupted, audio_utils.runs(long.mask), RATE)
    right = np.zeros(corrupted.shape)
    for number, note in enumerate(audio_utils.C_MAJOR):
        rows = held.note == number
        right[rows] = sinusoids(corrupted[rows], 1 - mask[rows], note)
    best = restored_long(held, lambda *given: best_sinusoids(*given)[0])
    expected = {
        "chopped input": (corrupted, long.corrupted),
        "linear interpolation": (lines, line),
        "autoregression (windows: first 16)": (continued, filled),
        "autoregression + Wiener filter, noise known": (None, noise_removed(filled, 0.2)),
        "best of the notes": (best_sinusoids(corrupted, 1 - mask)[0], best),
        "oracle: the right note": (right, oracle_of_the_scale(long.corrupted, 1 - long.mask)),
    }
    for name, estimates in expected.items():
        row = table(folder)[name, None]
        assert row == pytest.approx(scores_of(held, *estimates), abs=0.02), name


def test_rows_of_the_sound_model_are_recomputed(sounds):
    folder, model, held = sounds
    corrupted, observed = held.windows.corrupted, held.windows.observed
    windows = model.reconstruct(corrupted).numpy()
    long = restored_long(held, at_trained_level(model.reconstruct, audio_utils.RMS))
    # The network alone fills the gaps, and its reconstruction guides the filter.
    sound = held.long.corrupted, held.long.mask
    calibrated = noise.calibrate(*sound, RATE, lambda *sound: long)
    filtered = noise.denoise(*sound, long, RATE, *calibrated)[0]
    better = inference.refined_reconstruct(model, inference.refiner(model))
    refined_long = restored_long(held, at_trained_level(better, audio_utils.RMS))
    expected = {
        "DVAE": (windows, long),
        "DVAE + Wiener filter": (None, filtered),
        "DVAE, refined": (better(corrupted, observed).numpy(), refined_long),
    }
    rows = table(folder)
    for name, estimates in expected.items():
        assert rows[name, None] == pytest.approx(scores_of(held, *estimates), abs=0.01), name
    assert abs(snr(held.long.reference, filtered) - rows["DVAE", None]["long_snr_db"]) > 0.05
    finals = {name for name, iteration in rows if iteration is None}
    assert len(finals) == 9  # all are recomputed in this test and the one above


def test_the_last_checkpoint_of_sounds_is_recomputed(sounds):
    folder, model, held = sounds
    windows, long = model.reconstruct(held.windows.corrupted).numpy(), restored_long
    expected = scores_of(held, windows, long(held, model.reconstruct))
    nll, kl = nll_and_kl(model, held.windows.corrupted, held.windows.clean)
    expected |= {"nll": nll, "kl": kl, "loss": nll + kl}
    generated = model.generate(512, (SEED, PRIOR)).numpy()
    fits, note = best_sinusoids(generated, np.ones_like(generated))
    one_note = (fits**2).sum(1) >= 0.9 * (generated**2).sum(1)
    expected["generated_one_note"] = one_note.mean()
    expected["generated_notes"] = effective_number(note[one_note])
    row = table(folder)["DVAE", "200"]
    assert row.pop("train_loss") < table(folder)["DVAE", "100"]["train_loss"]
    assert row == pytest.approx(expected, abs=0.02)
    assert math.isnan(table(folder)["DVAE", "0"]["train_loss"])


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"), float)


def same_picture(path, expected):
    """Return True if pictures differ by rounding at most."""
    ours, theirs = pixels(path), pixels(expected)
    return ours.shape == theirs.shape and np.mean(np.abs(ours - theirs) > 8) < 1e-3


def test_pictures_and_wavs_of_sounds_show_the_model(sounds, tmp_path):
    folder, model, held = sounds
    long = restored_long(held, model.reconstruct)
    generated = model.generate(512, (SEED, PRIOR)).numpy()
    gain = min(1, 0.99 / np.abs([held.long.clean, held.long.corrupted]).max())
    new = np.pad(generated[:16] * audio_utils.note_fades(WINDOW, RATE), ((0, 0), (0, 1600)))
    for name, signal in (("reconstruction", long), ("generated", new.ravel())):
        written, rate = soundfile.read(folder / f"{name}_000200.wav")
        assert rate == RATE
        np.testing.assert_allclose(written, gain * signal, atol=1e-4)
    plotter, title = sound_figures.plotter(held.long, RATE), "The scale of C major"

    def drawn(long, generated):
        given = title, "block 0.2", 200, long, generated
        files = sound_figures.checkpoint(plotter, *given)
        names = [name for name in files if name.endswith(".png")]
        for name in names:
            files[name](tmp_path / name)
        return [same_picture(folder / name, tmp_path / name) for name in names]

    assert drawn(long, generated) == [True, True]
    assert drawn(-long, generated[::-1]) == [False, False]


@pytest.fixture(scope="module")
def images(digits):
    """Return the run's folder, its model, the model's refiner, the data, and held-out images."""
    data, model = load_images(), load_model(digits[0])
    with fewer_examples(FEWER):
        held = mnist_dvae.held_out(mnist_dvae.Settings(), data)
    return digits[0], model, inference.refiner(model), data, held


def scores_of_images(held, classify, labels, mean_filled, estimate):
    hole, error = held.mask == 1, (estimate - held.clean) ** 2.0
    found = {"hole_mse": error[hole].mean(), "mse": error.mean()}
    found["hole_mse_over_mean_fill"] = (
        found["hole_mse"] / ((mean_filled - held.clean) ** 2.0)[hole].mean()
    )
    found["classifier_error"] = np.mean(classify(estimate)[0] != labels)
    return found


def test_rows_of_the_final_table_of_digits_are_recomputed(images):
    folder, model, refine, data, held = images
    hole, train = held.mask == 1, data.train.reshape(len(data.train), -1) / 255.0
    count = len(held.clean)
    np.testing.assert_allclose(held.clean, data.test[:count].reshape(count, -1) / 255, atol=1e-6)
    mean_filled = np.where(hole, train.mean(0), held.corrupted)
    seen = (~hole).astype(float)
    distance = seen @ (train**2).T - 2 * (seen * held.corrupted) @ train.T
    nearest = np.where(hole, train[distance.argmin(1)], held.corrupted)
    reconstructed = model.reconstruct(held.corrupted).numpy()
    mean, log_var, _ = refine(held.corrupted, seen, *model.encode(held.corrupted))
    refined = model.expectation(mean).numpy()
    expected = {
        "holes black (the input)": held.corrupted,
        "holes filled with the mean digit": mean_filled,
        "holes filled from the nearest digit": nearest,
        "DVAE": reconstructed,
        "DVAE, refined": refined,
        "holes filled by the DVAE": np.where(hole, reconstructed, held.corrupted),
        "holes filled by the DVAE, refined": np.where(hole, refined, held.corrupted),
        "originals": held.clean,
    }
    rows = {name: row for (name, iteration), row in table(folder).items() if iteration is None}
    assert list(rows) == list(expected)
    grey = np.mean(train * (1 - train), axis=0)
    std = inference.predictive_std(model, mean, log_var, held.mask, grey, PRIOR)
    squares = (refined - held.clean)[hole] ** 2.0
    ratio = np.sqrt(squares.mean() / np.mean(std[hole] ** 2))
    assert rows["DVAE, refined"].pop("hole_error_over_std") == pytest.approx(ratio, rel=1e-3)
    clean, p = held.clean[hole], np.clip(refined[hole], 1e-3, 1 - 1e-3).astype(float)
    nll = -np.mean(scipy.special.xlogy(clean, p) + scipy.special.xlog1py(1 - clean, -p))
    assert rows["DVAE, refined"].pop("hole_nats_per_pixel") == pytest.approx(nll, rel=1e-3)
    classify = baselines.digit_classifier(data.train, data.train_labels)
    labels = data.test_labels[:count]
    for name, estimate in expected.items():
        scores = scores_of_images(held, classify, labels, mean_filled, estimate)
        assert rows[name] == pytest.approx(scores, rel=2e-3, abs=2.5e-3), name
        assert rows[name]["mse"] == pytest.approx(scores["mse"], rel=1e-3), name


def test_the_last_checkpoint_of_digits_is_recomputed(images):
    folder, model, _, data, held = images
    row, final = table(folder)["DVAE", "200"], table(folder)["DVAE", None]
    assert {name: row[name] for name in final} == pytest.approx(final, rel=1e-4)
    nll, kl = nll_and_kl(model, held.corrupted, held.clean)
    assert (row["nll"], row["kl"]) == pytest.approx((nll, kl), rel=1e-3)
    assert row["loss"] == pytest.approx(nll + kl, rel=1e-3)
    generated = model.generate(1000, (0, PRIOR)).numpy()
    classes, confidence = baselines.digit_classifier(data.train, data.train_labels)(generated)
    assert row["generated_confidence"] == pytest.approx(confidence.mean(), abs=1e-3)
    assert row["generated_classes"] == pytest.approx(effective_number(classes), abs=0.02)


def test_pictures_of_digits_show_the_model(images, tmp_path):
    folder, model, refine, _, held = images
    generated = model.generate(1000, (0, PRIOR)).numpy()
    rows = mnist_dvae.posterior_rows(mnist_dvae.Settings(), model, refine, held)
    reconstructed = model.reconstruct(held.corrupted).numpy()

    def drawn(estimates, further):
        files = mnist_dvae.draw(mnist_dvae.Settings(), (28, 28), held, estimates, further, 200)
        for name, save in files.items():
            save(tmp_path / name)
        return [same_picture(folder / name, tmp_path / name) for name in files]

    assert drawn((reconstructed, generated), rows) == [True, True]
    assert drawn((reconstructed, generated[::-1]), rows) == [True, False]
    for label in rows:
        other = {**rows, label: rows[label][::-1]}
        assert drawn((reconstructed, generated), other) == [False, True]


def test_the_page_has_the_grey_variance_of_the_training_images(images):
    """The page's uncertainty needs it, see `inference.predictive_std`."""
    folder, *_, data, _ = images
    page = (folder / "play.html").read_text(encoding="utf-8")
    content = json.loads(re.search('<script .*id="data">(.*)</script>', page)[1])
    coded = base64.b64decode(content["constants"]["greyVariance"])
    levels = data.train.reshape(len(data.train), -1) / 255
    grey = np.mean(levels * (1 - levels), axis=0)
    np.testing.assert_allclose(np.frombuffer(coded, "<f2"), grey, atol=2e-4)
