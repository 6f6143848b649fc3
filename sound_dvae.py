"""Train a denoising VAE to restore chopped, noisy sounds.

    python sound_dvae.py                       # 800 iterations, well under a minute on a laptop's CPU
    python sound_dvae.py --iters 3200          # longer, closer to the oracle
    python sound_dvae.py --timbre plucked --notes C4,E4,G4,C5
    python sound_dvae.py --data recordings --noise 0.3    # your own WAV, FLAC, OGG, MP3; noisy ones, too

The seven notes of C major, sinusoids in white noise, come in windows of 64 ms with a fifth of the
samples missing. The target is the whole noisy window, yet what the network learns to draw is the tone.
"""

import harness  # noqa: F401  sets NumPy's threads, so before NumPy

# isort: split
import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import audio_utils
import baselines
import corrupt
import random_numbers
import training
from audio_utils import C_MAJOR, NOISE_STD, TIMBRES, Notes, note_frequency, snr_db, write_wav
from files import sound_files
from files.folders import print_skipped
from harness import UserError, cli
from harness.quiet_tensorflow import tf
from harness.run_folder import METHOD, REFINED, Run
from inference import HOPS_A_WINDOW, refined_reconstruct, refiner, restore_long
from pages import figures, play, report
from pages.verdict import verdict
from signals import fill_gaps, noise

ONE_NOTE = 0.9  # a generated sound is one note if one of those it learned explains this share of its energy
HELD_OUT_WINDOWS = 2048
LONG_SECONDS = 3.5  # of the long input, at most, where it is not a scale
GENERATED = 512  # new sounds scored at each checkpoint
SHOWN = 16  # of them in the figure and the WAV
AUTOREGRESSED = 128  # windows are enough for this baseline, the slowest
FILTERED = f"{METHOD} + Wiener filter"
COLUMNS = "iteration", "loss", "snr_db", "gap_snr_db", "long_snr_db"  # printed at each checkpoint


def notes(text):
    """A flag's value: "C4,E4" -> ("C4", "E4")."""
    names = tuple(text.split(","))
    try:
        frequencies = [note_frequency(name) for name in names]
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from error
    if len({round(frequency, 3) for frequency in frequencies}) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} has a note twice")
    return names


@dataclass(frozen=True)
class Settings(corrupt.Settings):
    """The settings of `sound_dvae.py`."""

    experiment = "sound"
    kl_warm_up = 0.25
    iters: int = cli.flag(800, "optimizer steps", with_data=1600)
    batch_size: int = 256
    learning_rate: float = cli.flag(
        8e-3, "peak learning rate; warm-up, then cosine decay to 0", with_data=3e-3
    )
    hidden: tuple = cli.flag(
        (256, 256, 128), "widths of the encoder's layers, e.g. 256,128", with_data=(512, 512)
    )
    latent: int = cli.flag(5, "latent dimensions", with_data=64)
    sample_rate: int = cli.flag(16000, "sample rate in Hz, at least 1000")
    window: int = cli.flag(1024, "samples per window")
    notes: tuple = cli.flag(C_MAJOR, "notes of the built-in sounds, e.g. C4,Eb4,F#4", type=notes)
    timbre: str = cli.flag("sine", "timbre of the built-in sounds", choices=TIMBRES)
    data: str = cli.flag(
        None, "your own sounds instead: a WAV, FLAC, OGG or MP3 file, or a folder of them"
    )

    def __post_init__(self):
        super().__post_init__()
        rate, longest = self.sample_rate, self.sample_rate // 4
        if rate < 1000:
            raise UserError(
                f"argument --sample-rate: {rate} Hz is too low for sound; at least 1000 (see --help)"
            )
        if not 64 <= self.window <= longest:
            problem = f"{self.window} samples are not between 64 and {longest}, a quarter second"
            raise UserError(f"argument --window: {problem} (see --help)")
        if self.data is not None:
            if self.notes != C_MAJOR or self.timbre != "sine":
                raise UserError(
                    "argument --data: --notes and --timbre are for the built-in sounds; leave them out"
                )
            return
        least, most = rate / self.window, rate / 2  # a period a window; Nyquist
        for note in self.notes:
            if not least <= (frequency := note_frequency(note)) < most:
                problem = (
                    f"{note}, {frequency:.5g} Hz, is not between {least:.5g} and {most:.5g} Hz"
                )
                raise UserError(f"argument --notes: {problem} (see --help)")


class HeldOut(NamedTuple):
    """What is scored, drawn once, so that two checkpoints differ by training alone: windows (M, N), a long sound (T,).

    The reference is the noise-free tone of built-in notes, which is for scores only, and a recording itself.
    """

    corrupted: np.ndarray
    clean: np.ndarray
    mask: np.ndarray
    reference: np.ndarray
    note: np.ndarray | None  # (M,), of built-in notes: which
    long_corrupted: np.ndarray
    long_clean: np.ndarray
    long_mask: np.ndarray
    long_reference: np.ndarray


class Canvas(NamedTuple):
    """What draws the long sound, and its input drawn already; the gain that makes all its WAVs fit."""

    draw: Callable
    chopped: np.ndarray
    gain: float


def load(settings):
    """The built-in notes, or recordings, behind one interface. Says on stderr which files cannot be used."""
    if settings.data is None:
        return Notes(settings.notes, settings.timbre, settings.sample_rate, settings.window)
    recordings = sound_files.load(
        settings.data,
        settings.sample_rate,
        settings.window,
        audio_utils.RMS,
        LONG_SECONDS,
        settings.out,
    )
    print_skipped(recordings.skipped)
    print(recordings.summary)
    return recordings


def make_batch(settings, sounds, seed, count):
    """A training batch: chopped and whole windows, noisy both, (count, N) each."""
    sound_seed, corruption_seed = tf.unstack(tf.random.split(seed))
    _, clean, _ = sounds.windows("training", count, sound_seed)
    corrupted, _ = corrupt.apply(settings, clean, corruption_seed)
    return corrupted, clean


def held_out(settings, sounds):
    """The held-out windows and the long sound."""
    reference, clean, note = sounds.windows("held out", HELD_OUT_WINDOWS, training.HELD_OUT_SEED)
    corrupted, mask = corrupt.apply(settings, clean, tf.random.fold_in(training.HELD_OUT_SEED, 1))
    windows = (
        part if part is None else part.numpy() for part in (corrupted, clean, mask, reference, note)
    )
    long_seed = settings.seed, training.LONG_INPUT
    long_reference, long_clean = sounds.long(long_seed)
    cut = tf.constant(audio_utils.cut(long_clean, settings.window), tf.float32)
    noisy = cut + settings.noise / 2 * random_numbers.normal(
        cut.shape, tf.random.fold_in(long_seed, 1)
    )  # steady, as noise is
    damaged = corrupt.CORRUPTIONS[settings.corruption](noisy, settings.amount, long_seed)
    long_corrupted, long_mask = (part.numpy().ravel()[: long_clean.size] for part in damaged)
    return HeldOut(*windows, long_corrupted, long_clean, long_mask, long_reference)


def restored(settings, held, reconstruct, hops=HOPS_A_WINDOW):
    """The long sound restored by `reconstruct`, which maps windows to windows."""
    return restore_long(
        held.long_corrupted, held.long_mask, reconstruct, settings.window, settings.window // hops
    )


def without_noise(settings, held, reconstruct, long):
    """The long sound, `long` as the network restores it, with the phases of what is observed, and noise taken out."""
    sound, mask, rate = held.long_corrupted, held.long_mask, settings.sample_rate
    if not settings.data:  # the network knows notes better than any continuation does
        frames = noise.transform(rate)
        power, _ = noise.estimated(frames, sound, mask, long)
        return noise.wiener(frames, np.where(mask == 1, long, sound), long, power)
    redraw = partial(
        restore_long,
        reconstruct=reconstruct,
        window=settings.window,
        hop=settings.window // HOPS_A_WINDOW,
    )
    power, _, weights = noise.calibrate(sound, mask, rate, redraw)
    return noise.denoise(sound, mask, long, rate, power, weights)


def score(settings, held, windows, long):
    """The scores of an estimate of the held-out windows (the first of them, or None), and of the long sound."""
    scores, gaps = {}, held.long_mask == 1
    if windows is not None:
        reference, missing = held.reference[: len(windows)], held.mask[: len(windows)] == 1
        scores["snr_db"] = snr_db(reference, windows)
        scores["gap_snr_db"] = snr_db(reference[missing], windows[missing])
    return {
        **scores,
        "long_snr_db": snr_db(held.long_reference, long),
        "long_gap_snr_db": snr_db(held.long_reference[gaps], long[gaps]),
        "long_si_sdr_db": audio_utils.si_sdr_db(held.long_reference, long),
        "long_lsd_db": audio_utils.log_spectral_distance_db(
            held.long_reference, long, settings.sample_rate
        ),
    }


def evaluate(settings, model, sounds, held):
    """The model's scores, and its estimates: windows (M, N), the long sound (T,), new windows (G, N)."""
    windows = model.reconstruct(held.corrupted).numpy()
    long = restored(settings, held, model.reconstruct)
    generated = model.generate(GENERATED, (settings.seed, training.PRIOR)).numpy()
    losses = training.held_out_losses(model, held.corrupted, held.clean)
    scores = {**losses, **score(settings, held, windows, long)}
    if sounds.note_options:
        share, note = baselines.note_share(generated, **sounds.note_options)
        scores["generated_one_note"] = np.mean(share >= ONE_NOTE)
        scores["generated_notes"] = baselines.effective_number(note[share >= ONE_NOTE])
    return scores, (windows, long, generated)


def compared_estimates(settings, sounds, held, ours):
    """Estimates of the held-out sounds, from the input to the best there can be: {method: (windows, long sound)}.

    ours: those of the model. The others are the baselines.
    """
    options, chopped = sounds.note_options, (held.corrupted, held.long_corrupted)
    gap, long_gap = held.corrupted * (1 - held.mask), held.long_corrupted * (1 - held.long_mask)
    held = held._replace(
        corrupted=gap, long_corrupted=long_gap
    )  # baselines are told what salt-and-pepper has hit

    filled = fill_gaps.fill(
        held.long_corrupted, audio_utils.runs(held.long_mask), settings.sample_rate
    )
    if (filled == 0).any():  # gaps too many for it
        filled = baselines.autoregress_long(held.long_corrupted, held.long_mask, settings.window)
    methods = {
        "chopped input": chopped,
        "linear interpolation": (
            baselines.interpolate(held.corrupted, held.mask),
            baselines.interpolate(held.long_corrupted[None], held.long_mask[None])[0],
        ),
        f"autoregression (windows: first {AUTOREGRESSED})": (
            baselines.autoregress(held.corrupted[:AUTOREGRESSED], held.mask[:AUTOREGRESSED]),
            filled,
        ),
    }
    noise_std = np.hypot(NOISE_STD if options else 0, settings.noise / 2)
    if noise_std:
        frames = noise.transform(settings.sample_rate)
        power = np.full(frames.f_pts, noise_std**2 * np.sum(frames.win**2))
        methods["autoregression + Wiener filter, noise known"] = (
            None,
            noise.classic_wiener(frames, filled, power),
        )
    if not options:
        return methods | ours

    def best_note(windows, observed):
        return baselines.best_note(windows, 1 - observed, **options)

    return methods | {
        "best of the notes": (
            best_note(held.corrupted, 1 - held.mask),
            restored(settings, held, best_note),
        ),
        **ours,
        "oracle: the right note": (
            baselines.right_note(held.corrupted, held.mask, index=held.note, **options),
            baselines.right_scale(held.long_corrupted, held.long_mask, **options),
        ),
    }


def canvas(settings, held):
    """What every checkpoint's figure of the long sound is drawn on."""
    frequency_limit = audio_utils.frequency_limit(held.long_reference, settings.sample_rate)
    draw = figures.sounds(
        held.long_corrupted, held.long_mask, settings.sample_rate, frequency_limit
    )
    peak = np.abs([held.long_clean, held.long_corrupted]).max()
    gain = min(1.0, 0.99 / peak)  # one for all WAVs: their levels compare, none clips
    return Canvas(draw, draw("", "chopped input", held.long_corrupted), gain)


def render_inputs(settings, sounds, held, on):
    """The long sound as WAVs: whole, chopped, and without noise if that is known: {file name: save(path)}."""
    inputs = {"clean.wav": held.long_clean, "chopped.wav": held.long_corrupted}
    inputs |= {"tone.wav": held.long_reference} if sounds.note_options else {}
    write = partial(write_wav, sample_rate=settings.sample_rate)
    return {name: partial(write, signal=on.gain * sound) for name, sound in inputs.items()}


def render(settings, title, on, estimates, iteration):
    """The pictures and WAVs of a checkpoint: {file name: save(path)}."""
    _, long, generated = estimates
    rate, what = settings.sample_rate, f"{settings.damage}, after {iteration} iterations"
    mended = on.draw(f"{title}, restored ({what})", "reconstruction", long)
    new = figures.windows(f"New sounds from the prior ({what})", generated[:SHOWN], rate)
    new_sound = audio_utils.one_after_the_other(generated[:SHOWN], rate)
    return {
        f"reconstruction_{iteration:06d}.png": partial(figures.save, pictures=[mended, on.chopped]),
        f"generated_{iteration:06d}.png": partial(figures.save, pictures=[new]),
        f"reconstruction_{iteration:06d}.wav": partial(
            write_wav, signal=on.gain * long, sample_rate=rate
        ),
        f"generated_{iteration:06d}.wav": partial(
            write_wav, signal=on.gain * new_sound, sample_rate=rate
        ),
    }


def main(settings):
    with Run(settings, report.write, report.WRITTEN, COLUMNS) as run:
        sounds = load(settings)
        run.record(sounds.provenance)
        held = held_out(settings, sounds)
        on = canvas(settings, held)
        run.save(render_inputs(settings, sounds, held, on))

        from models import (
            DVAE,  # not before flags, folder and data are known to be good: it loads TensorFlow
        )

        tf.keras.utils.set_random_seed(settings.seed)  # for the weights' first values
        metadata = {"experiment": "sound", **sounds.metadata}
        network = settings.hidden, settings.latent, settings.components
        with run.workers.strategy.scope():
            model = DVAE(settings.window, "gaussian", *network, metadata=metadata)
        for iteration, train_loss in training.train(
            model, partial(make_batch, settings, sounds), settings, run
        ):
            scores, estimates = evaluate(settings, model, sounds, held)
            files = render(settings, sounds.title, on, estimates, iteration)
            run.log(iteration, {"train_loss": train_loss, **scores}, files)
        ours = {METHOD: estimates[:2]}
        if settings.corruption != "salt-pepper":  # which does not tell where it is
            ours[FILTERED] = None, without_noise(settings, held, model.reconstruct, estimates[1])
        if settings.tells_missing:
            better = refined_reconstruct(model, refiner(model))
            ours[REFINED] = (
                better(held.corrupted, 1 - held.mask).numpy(),
                restored(settings, held, better),
            )
        if settings.data and FILTERED in ours:
            best = ours[FILTERED][1]
            title = f"{sounds.title}: gaps filled, noise taken out ({settings.damage})"
            mended = on.draw(title, "restored sound", best)
            sound = partial(write_wav, signal=on.gain * best, sample_rate=settings.sample_rate)
            run.save(
                {
                    "restored.png": partial(figures.save, pictures=[mended, on.chopped]),
                    "restored.wav": sound,
                }
            )
        methods = compared_estimates(settings, sounds, held, ours)
        run.save(play.files(model, held.clean, held.note, held.long_clean))
        rows = [
            {"method": method, **score(settings, held, *both)} for method, both in methods.items()
        ]
        run.finish(model, rows)
        print(verdict(rows))
    if settings.data:
        print(f"Longer training helps: try --iters {4 * settings.iters} --out FOLDER")
    print(f"Look at and listen to {settings.out / 'index.html'}")


if __name__ == "__main__":
    with cli.one_line_errors():
        main(cli.parse(Settings, __doc__))
