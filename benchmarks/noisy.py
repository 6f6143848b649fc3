"""Noisy, chopped recordings restored: `denoise.py`, the strong classic that is told the noise, spectral gating.

    python sound_dvae.py --data FOLDER --noise 0.3 --out RUN
    python benchmarks/noisy.py RUN FOLDER ... [--hiss FILE]

Of each folder, which is what a run has learned from or another, the long sound that such a run holds out gets noise,
white and pink (and a recorded hiss), and then a gap in every window, a fifth of it. SNR in dB against the recording:
everything / inside the gaps. The classic is autoregression in blocks, as long as is best for each row, or a gap at a
time; then a Wiener filter. A run of the built-in notes takes no folder: their scale, with its own noise.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import soundfile

import audio_utils
import corrupt
from audio_utils import snr_db
from baselines import autoregress, interpolate
from files import sound_files
from files.model_file import load_restorer
from files.restore_sound import restore_sound
from harness.quiet_tensorflow import tf
from signals import fill_gaps, noise

LEVELS_DB, SECONDS, PEAK = (20, 15, 10, 5), 8.0, 0.7
BLOCKS = (1024, 2048, 4096)


def coloured(kind, samples, rate, hiss):
    """Noise of RMS 1: (samples,)."""
    if kind == "hiss":
        found = np.concatenate(list(sound_files.decode(hiss, rate)))
        return np.resize(found, samples) / found.std()
    white = np.random.default_rng(1).standard_normal(samples)
    if kind == "pink":
        spectrum, frequency = np.fft.rfft(white), np.fft.rfftfreq(samples, 1 / rate)
        white = np.fft.irfft(
            spectrum * np.where(frequency > 20, np.maximum(frequency, 20) ** -0.5, 0), samples
        )
    return white / white.std()


def by_model(model, chopped, mask, rate):
    """What `denoise.py` makes of it: (T,)."""
    with tempfile.TemporaryDirectory() as folder:
        source, result, labels = (Path(folder) / name for name in ("a.wav", "b.wav", "gaps"))
        gain = PEAK / np.abs(chopped).max()
        soundfile.write(source, gain * chopped, rate, subtype="DOUBLE")
        labels.write_text(
            "".join(
                f"{first / rate:.7f} {end / rate:.7f}\n" for first, end in audio_utils.runs(mask)
            )
        )
        restore_sound(model, source, result, labels)
        return soundfile.read(result)[0] / gain


def in_blocks(chopped, mask, block):
    return restore_long(
        chopped,
        mask,
        lambda windows, observed: autoregress(windows, 1 - observed),
        block,
        block // 2,
    )


def estimates(model, clean, noisy, chopped, mask, rate):
    """{method: (T,)}; those in a tuple count as one, the best."""
    frames = noise.transform(rate)
    power = np.median(np.abs(frames.stft(noisy - clean)) ** 2, axis=1) / np.log(
        2
    )  # of exponentially distributed ones
    filled = tuple(in_blocks(chopped, mask, block) for block in BLOCKS)
    gap_by_gap = fill_gaps.fill(chopped, audio_utils.runs(mask), rate)
    yield "chopped", chopped
    yield "linear interpolation", interpolate(chopped[None], mask[None])[0]
    yield "**denoise.py**", by_model(model, chopped, mask, rate)
    yield (
        "autoregression + Wiener, noise known",
        tuple(noise.classic_wiener(frames, each, power) for each in filled),
    )
    yield "a gap at a time + Wiener, noise known", noise.classic_wiener(frames, gap_by_gap, power)
    try:
        import noisereduce
    except ImportError:
        return
    yield "noisereduce", noisereduce.reduce_noise(gap_by_gap, rate, stationary=True)


def row(model, clean, noisy, rate):
    """{method: "everything / gaps"}, dB."""
    cut = tf.constant(audio_utils.cut(noisy, model.input_size), tf.float32)
    chopped, mask = (part.numpy().ravel()[: clean.size] for part in corrupt.block(cut, 0.2, (0, 1)))
    missing, scores = mask == 1, {}
    for method, found in estimates(model, clean, noisy, chopped, mask, rate):
        each = [
            (snr_db(clean, one), snr_db(clean[missing], one[missing]))
            for one in np.atleast_2d(found)
        ]
        scores[method] = "{:.1f} / {:.1f}".format(*np.max(each, axis=0))
    return scores


def sounds(model, folders):
    """Name, clean sound, and noise of its own or None."""
    rate, window = model.kind.sample_rate, model.input_size
    if not folders:
        tone, noisy = model.kind.notes.long((0, 1))
        yield "scale", tone, noisy
    for folder in folders:
        with tempfile.TemporaryDirectory() as store:
            found = sound_files.load(folder, rate, window, audio_utils.RMS, SECONDS, store)
            yield Path(folder).name, np.array(found.long_sound), None


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("model", type=Path)
    flags.add_argument("folders", nargs="*")
    flags.add_argument("--hiss", help="a recording of nothing but noise")
    settings = flags.parse_args()
    model = load_restorer(settings.model)
    rate, head = model.kind.sample_rate, None
    kinds = ["white", "pink"] + ["hiss"] * bool(settings.hiss)
    for name, clean, own in sounds(model, settings.folders):
        rms = np.sqrt(np.mean(clean**2))
        noisy = {f"{name}, its own noise": own} if own is not None else {}
        for kind in kinds if own is None else ():
            found = coloured(kind, clean.size, rate, settings.hiss)
            noisy |= {
                f"{name}, {kind} {level} dB": clean + rms * 10 ** (-level / 20) * found
                for level in LEVELS_DB
            }
        for what, sound in noisy.items():
            scores = row(model, clean, sound, rate)
            if head is None:
                head = list(scores)
                print(f"| | {' | '.join(head)} |\n|---{'|---' * len(head)}|")
            print(f"| {what} | {' | '.join(scores[method] for method in head)} |", flush=True)


if __name__ == "__main__":
    main()
