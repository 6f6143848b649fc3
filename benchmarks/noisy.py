"""Compare restorations of noisy, chopped recordings: `denoise.py`, Wiener filter, spectral gating.

    python sound_dvae.py --data FOLDER --noise 0.3 --out RUN
    python benchmarks/noisy.py RUN FOLDER ...

The test sound of a folder is the one that a run with `--data FOLDER` would hold out. White or pink
noise is added, then 20% of every window is removed. Each cell of the table gives the SNR in dB
against the recording: over everything / in the gaps. The classic method fills one gap at a time by
autoregression, and then applies a Wiener filter with known noise; with the noise that `denoise.py`
estimates, it shows what that estimate costs. "Guided by the network alone" is `denoise.py` without
its mixture. For a run on the built-in notes give no folder. The test sound is then their scale,
with the run's own noise.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import soundfile

import audio_utils
import corrupt
import sound_dvae
from baselines import interpolate
from files import sound_files
from files.gap_labels import read_labels
from files.model_file import load_restorer
from files.restore_sound import restore_sound
from harness.quiet_tensorflow import tf
from inference import restore_long
from signals import fill_gaps, noise
from signals.levels import at_trained_level

LEVELS_DB = {"white": (30, 20, 10, 5, 0), "pink": (20, 10)}  # SNR of the noisy recordings
SECONDS = 8.0  # maximum length of each test sound
PEAK = 0.7  # peak of the file that denoise.py reads, low enough that nothing clips


def colored(kind, samples, rate):
    """Return white or pink noise of RMS 1 (samples,)."""
    white = np.random.default_rng(1).standard_normal(samples)
    if kind == "pink":
        frequency = np.fft.rfftfreq(samples, 1 / rate)
        gain = np.where(frequency > 20, np.maximum(frequency, 20) ** -0.5, 0)
        white = np.fft.irfft(np.fft.rfft(white) * gain, samples)
    return white / white.std()


def by_model(model, chopped, gaps, rate, keep=False):
    """Restore a sound with gaps (n, 2) as `denoise.py` does: (T,) -> (T,)."""
    with tempfile.TemporaryDirectory() as folder:
        source, result, labels = (Path(folder) / name for name in ("a.wav", "b.wav", "gaps"))
        soundfile.write(source, chopped, rate, subtype="DOUBLE")
        labels.write_text("".join(f"{first / rate:.7f} {end / rate:.7f}\n" for first, end in gaps))
        restore_sound(model, source, result, read_labels(labels), keep)
        return soundfile.read(result)[0]


def estimates(model, sound, rate):
    """Yield the name and the estimate (T,) of each method."""
    chopped, noisy, mask, clean = sound
    gaps, gain = audio_utils.runs(mask), PEAK / np.abs(chopped).max()
    filled = fill_gaps.fill(chopped, gaps, rate)
    yield "chopped", chopped
    yield "linear interpolation", interpolate(chopped[None], mask[None])[0]
    yield "**denoise.py**", by_model(model, gain * chopped, gaps, rate) / gain
    reconstruct = at_trained_level(model.reconstruct, model.kind.rms)
    restore = partial(restore_long, reconstruct=reconstruct, window=model.input_size)
    size, drawn = noise.typical_size(gaps), restore(chopped, mask)
    spectrum, denoisers, weights = noise.calibrate(chopped, mask, rate, restore, size)
    guided = np.eye(len(denoisers))[1, :, None] * np.ones_like(denoisers)
    alone = noise.denoise(chopped, mask, drawn, rate, spectrum, guided, np.eye(len(weights))[1])[0]
    yield "guided by the network alone", alone
    frames = noise.transform(rate)
    power = noise.noise_power(noise.quiet_power(frames, filled, drawn, mask), spectrum)
    yield "classic, noise estimated", noise.classic_wiener(frames, filled, power)
    # The median of exponentially distributed powers is log 2 times their mean.
    known = np.median(np.abs(frames.stft(noisy - clean)) ** 2, axis=1) / np.log(2)
    yield "classic, noise known", noise.classic_wiener(frames, filled, known)
    try:
        import noisereduce
    except ImportError:
        return
    yield "noisereduce", noisereduce.reduce_noise(filled, rate, stationary=True)


def row(model, clean, noisy, rate):
    """Return a table row {method: "SNR over everything / in the gaps"}, in dB."""
    cut = tf.constant(audio_utils.cut(noisy, model.input_size), tf.float32)
    chopped, mask = (part.numpy().ravel()[: clean.size] for part in corrupt.block(cut, 0.2, (0, 1)))
    sound, scores = sound_dvae.Damaged(chopped, noisy, mask, reference=clean), {}
    for method, estimate in estimates(model, sound, rate):
        scores[method] = "{:.1f} / {:.1f}".format(*sound_dvae.snrs(sound, estimate))
    return scores


def sounds(model, folders):
    """Yield a title, the clean sound (T,) and the noisy sound (T,) for each table row."""
    rate, window = model.kind.sample_rate, model.input_size
    if not folders:
        yield "scale, its own noise", *model.kind.notes.long((0, 1))
    for folder in folders:
        with tempfile.TemporaryDirectory() as store:
            found = sound_files.load(folder, rate, window, audio_utils.RMS, store, SECONDS)
            clean = np.array(found.long_sound)
        rms = np.sqrt(np.mean(clean**2))
        for kind, levels in LEVELS_DB.items():
            added = rms * colored(kind, clean.size, rate)
            for level in levels:
                title = f"{Path(folder).name}, {kind} {level} dB"
                yield title, clean, clean + 10 ** (-level / 20) * added


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("model", type=Path, metavar="RUN", help="a finished run of sound_dvae.py")
    flags.add_argument("folders", nargs="*", metavar="FOLDER", help="recordings")
    settings = flags.parse_args()
    model = load_restorer(settings.model)
    for number, (title, clean, noisy) in enumerate(sounds(model, settings.folders)):
        scores = row(model, clean, noisy, model.kind.sample_rate)
        if number == 0:
            print(f"| | {' | '.join(scores)} |\n|---{'|---' * len(scores)}|")
        print(f"| {title} | {' | '.join(scores.values())} |", flush=True)


if __name__ == "__main__":
    main()
