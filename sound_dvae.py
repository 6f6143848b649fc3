"""Train a denoising VAE to restore chopped, noisy sounds.

    python sound_dvae.py                       # 800 iterations, well under a minute on a laptop
    python sound_dvae.py --iters 3200          # longer, closer to the oracle
    python sound_dvae.py --timbre plucked --notes C4,E4,G4,C5
    python sound_dvae.py --data recordings --noise 0.3    # your own sounds, noisy ones included

The encoder sees windows of 64 ms of the seven notes of C major, sinusoids in white noise. A fifth
of the samples is missing. The target is the whole noisy window, yet the decoder learns to output
the pure tone, because the latent code is too small to encode noise.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))  # `python -P` leaves it out

import numpy as np

import audio_utils
import baselines
import corrupt
import inference
import random_numbers
import training
from audio_utils import C_MAJOR, NOISE_STD, TIMBRES, Notes, snr_db
from files import folders, sound_files
from harness import UserError, cli
from harness.cli import flag
from harness.errors import say
from harness.quiet_tensorflow import tf
from harness.run_folder import METHOD, REFINED, Run
from pages import play, report, sound_figures, verdict
from signals import fill_gaps, noise
from signals.levels import at_trained_level


@dataclass(frozen=True)
class Settings(cli.Settings):
    """Hyperparameters for sounds. Each field is also a command-line flag."""

    experiment = "sound"
    training_version = 2  # 1 had beta_2 = 0.999
    activation = "relu"  # of the hidden layers
    kl_warm_up = 0.25  # fraction of the iterations in which the KL weight rises to 1
    beta_2 = 0.99  # decay of Adam's mean squared gradients
    iters: int = flag(800, "optimizer steps", with_data=1600)
    batch_size: int = flag(256, "windows per step")
    learning_rate: float = flag(
        8e-3, "peak after a warm-up, then cosine decay to 0", above=0, with_data=3e-3
    )
    hidden: tuple = flag(
        (256, 256, 128), "widths of the encoder's layers, e.g. 256,128", with_data=(512, 512)
    )
    latent: int = flag(5, "latent dimensions", with_data=64)
    components: int = flag(200, "Gaussians in the mixture prior")
    corruption: str = flag("block", "how the input is corrupted", choices=corrupt.CORRUPTIONS)
    amount: float = flag(
        0.2, "fraction corrupted; for gaussian, the noise std", above=0, below=corrupt.amount_limit
    )
    noise: float = flag(0.0, "maximum standard deviation of added white noise", low=0, high=10)
    sample_rate: int = flag(16000, "sample rate in Hz", low=1000)
    window: int = flag(1024, "samples per window", low=64, high=lambda s: s.sample_rate // 4)
    notes: tuple = flag(C_MAJOR, "built-in notes, e.g. C4,Eb4,F#4", parse=audio_utils.note_names)
    timbre: str = flag("sine", "timbre of the built-in notes", choices=TIMBRES)
    data: str = flag(None, "your own sounds instead: a sound file, or a folder of them")

    def __post_init__(self):
        super().__post_init__()
        if self.data is None:
            self.built_in_notes().check()
        elif self.notes != C_MAJOR or self.timbre != "sine":
            raise UserError("--data: cannot be combined with --notes or --timbre; leave them out")

    def built_in_notes(self):
        return Notes(self.notes, self.timbre, self.sample_rate, self.window)


HELD_OUT_WINDOWS = 2048
LONG_SECONDS = 3.5  # maximum length of the long sound if it is a recording
GENERATED = 512  # samples from the prior scored at each checkpoint
ONE_NOTE = 0.9  # minimum fraction of a generated window's energy explained by its best note
AUTOREGRESSED = 128  # windows restored by autoregression: few, because this baseline is slow
FILTERED = f"{METHOD} + Wiener filter"
COLUMNS = "iteration", "loss", "snr_db", "gap_snr_db", "long_snr_db"  # printed scores


class Damaged(NamedTuple):
    """Sounds before and after corruption: windows (M, N), or the long sound (T,)."""

    corrupted: np.ndarray
    clean: np.ndarray
    mask: np.ndarray  # 1 where missing
    reference: np.ndarray  # target of the scores: the noise-free tone, or the recording

    @property
    def observed(self):
        return 1 - self.mask


class HeldOut(NamedTuple):
    """Sounds to score and show, the same at every checkpoint."""

    windows: Damaged
    long: Damaged
    note: np.ndarray | None  # (M,): index of each window's note; None for recordings


def load(settings):
    """Return the built-in notes or the user's recordings. Skipped files are listed on stderr."""
    if settings.data is None:
        return settings.built_in_notes()
    rate, window, rms = settings.sample_rate, settings.window, audio_utils.RMS
    sounds = sound_files.load(settings.data, rate, window, rms, settings.out, LONG_SECONDS)
    folders.print_skipped(sounds.skipped)
    print(sounds.summary)
    return sounds


def make_batch(settings, sounds, seed, count):
    """Return a random batch (corrupted, clean), each (count, N). Clean sounds keep their noise."""
    sound_seed, corruption_seed = tf.unstack(tf.random.split(seed))
    _, clean, _ = sounds.windows("training", count, sound_seed)
    corrupted, _ = corrupt.apply(settings, clean, corruption_seed)
    return corrupted, clean


def held_out(settings, sounds):
    """Return the held-out windows and the long sound, clean and corrupted."""
    seed = training.HELD_OUT_SEED
    reference, clean, note = sounds.windows("held out", HELD_OUT_WINDOWS, seed)
    corrupted, mask = corrupt.apply(settings, clean, tf.random.fold_in(seed, 1))
    windows = Damaged(*(np.asarray(part) for part in (corrupted, clean, mask, reference)))
    return HeldOut(windows, held_out_long(settings, sounds), None if note is None else note.numpy())


def held_out_long(settings, sounds):
    """Return the long sound, corrupted window by window. Added noise has a constant level."""
    seed = settings.seed, training.LONG_INPUT
    reference, clean = sounds.long(seed)
    pieces = tf.constant(audio_utils.cut(clean, settings.window), tf.float32)
    white = random_numbers.normal(pieces.shape, tf.random.fold_in(seed, 1))
    noisy = pieces + settings.noise / 2 * white
    damaged = corrupt.CORRUPTIONS[settings.corruption](noisy, settings.amount, seed)
    corrupted, mask = (part.numpy().ravel()[: clean.size] for part in damaged)
    return Damaged(corrupted, clean, mask, reference)


def restore_long(settings, long, reconstruct):
    """Restore the long sound from overlapping windows."""
    return inference.restore_long(long.corrupted, long.mask, reconstruct, settings.window)


def filter_long(settings, sounds, long, reconstruct, restored):
    """Filter noise from the long sound, guided by `restored`, the model's reconstruction."""

    def restore(corrupted, mask):
        return restore_long(settings, long._replace(corrupted=corrupted, mask=mask), reconstruct)

    # With size 0, the model's output alone fills the gaps, which is best for notes. Otherwise it is
    # mixed with continuations of the surroundings. Artificial gaps of this size give the weights.
    size = 0 if sounds.notes else noise.typical_size(audio_utils.runs(long.mask))
    damaged = long.corrupted, long.mask
    calibrated = noise.calibrate(*damaged, settings.sample_rate, restore, size)
    return noise.denoise(*damaged, restored, settings.sample_rate, *calibrated)[0]


def snrs(damaged, estimate):
    """Return the SNR in dB of all samples and of the gaps. `estimate` may omit the last windows."""
    reference, gaps = (part[: len(estimate)] for part in (damaged.reference, damaged.mask == 1))
    return snr_db(reference, estimate), snr_db(reference[gaps], estimate[gaps])


def score(settings, held, windows, long):
    """Return the scores of an estimate: held-out windows (or None) and the long sound."""
    scores = {}
    if windows is not None:
        scores["snr_db"], scores["gap_snr_db"] = snrs(held.windows, windows)
    scores["long_snr_db"], scores["long_gap_snr_db"] = snrs(held.long, long)
    reference, rate = held.long.reference, settings.sample_rate
    scores["long_si_sdr_db"] = audio_utils.si_sdr_db(reference, long)
    scores["long_lsd_db"] = audio_utils.log_spectral_distance_db(reference, long, rate)
    return scores


def evaluate(settings, model, sounds, held):
    """Return the scores, then a triple: windows (M, N), long sound (T,), samples of the prior."""
    windows = model.reconstruct(held.windows.corrupted, held.windows.observed).numpy()
    long = restore_long(settings, held.long, model.reconstruct)
    generated = model.generate(GENERATED, (settings.seed, training.PRIOR)).numpy()
    losses = training.held_out_losses(model, held.windows.corrupted, held.windows.clean)
    scores = {**losses, **score(settings, held, windows, long)}
    if sounds.notes:
        fraction, note = baselines.note_fraction(generated, sounds)
        scores["generated_one_note"] = np.mean(fraction >= ONE_NOTE)
        scores["generated_notes"] = baselines.effective_number(note[fraction >= ONE_NOTE])
    return scores, (windows, long, generated)


def own_estimates(settings, model, sounds, held, windows):
    """Return the model's estimates as {method: (windows or None, long sound)}.

    The long sound is restored as `denoise.py` does it, which needs no knowledge of its level.
    """
    rms = sounds.metadata["rms"]
    reconstruct = at_trained_level(model.reconstruct, rms)
    long = restore_long(settings, held.long, reconstruct)
    ours = {METHOD: (windows, long)}
    # The filter needs the mask, or a sound in which nothing is missing.
    if settings.corruption in corrupt.MASK_KNOWN or not held.long.mask.any():
        filtered = filter_long(settings, sounds, held.long, reconstruct, long)
        ours[FILTERED] = None, filtered
    if corrupt.exact_where_observed(settings):
        refine = inference.refined_reconstruct(model, inference.refiner(model))
        refined = refine(held.windows.corrupted, held.windows.observed).numpy()
        ours[REFINED] = refined, restore_long(settings, held.long, at_trained_level(refine, rms))
    return ours


def baseline_estimates(settings, sounds, held):
    """Return the baselines' estimates as {method: (windows or None, long sound)}, input first.

    Baselines are given the mask, even for salt-and-pepper noise.
    """
    windows, long, _ = held
    first = windows.corrupted[:AUTOREGRESSED], windows.mask[:AUTOREGRESSED]
    continued = baselines.autoregress(*first)
    gaps, rate = audio_utils.runs(long.mask), settings.sample_rate
    filled = fill_gaps.fill(np.where(long.mask == 1, np.nan, long.corrupted), gaps, rate)
    if np.isnan(filled).any():  # too many gaps to fill one at a time
        filled = baselines.autoregress_long(long.corrupted, long.mask, settings.window)
    lines = baselines.interpolate(windows.corrupted, windows.mask)
    (line,) = baselines.interpolate(long.corrupted[None], long.mask[None])
    methods = {
        "chopped input": (windows.corrupted, long.corrupted),
        "linear interpolation": (lines, line),
        f"autoregression (windows: first {AUTOREGRESSED})": (continued, filled),
    }
    noise_std = np.hypot(NOISE_STD if sounds.notes else 0, settings.noise / 2)
    if noise_std:
        frames = noise.transform(settings.sample_rate)
        power = np.full(frames.f_pts, noise_std**2)
        filtered = noise.classic_wiener(frames, filled, power)
        methods["autoregression + Wiener filter, noise known"] = None, filtered
    if sounds.notes:

        def best(corrupted, observed):
            return baselines.best_note(corrupted, 1 - observed, sounds)

        fits = best(windows.corrupted, windows.observed)
        methods["best of the notes"] = fits, restore_long(settings, long, best)
    return methods


def oracle_estimates(sounds, held):
    """Return estimates from a fit of the right note, or {} for recordings."""
    if not sounds.notes:
        return {}
    windows, long = held.windows, held.long
    windows = baselines.right_note(windows.corrupted, windows.mask, sounds, held.note)
    scale = baselines.right_scale(long.corrupted, long.mask, sounds)
    return {"oracle: the right note": (windows, scale)}


def final_table(settings, sounds, held, ours):
    """Return the scores of the baselines, the model and the oracle, one row per method."""
    methods = baseline_estimates(settings, sounds, held) | ours | oracle_estimates(sounds, held)
    return [{"method": name, **score(settings, held, *each)} for name, each in methods.items()]


def main(settings):
    with Run(settings, report.files, report.WRITTEN, COLUMNS) as run:
        sounds = load(settings)
        run.record(sounds.provenance)
        held = held_out(settings, sounds)
        plotter = sound_figures.plotter(held.long, settings.sample_rate)
        run.save(sound_figures.inputs(plotter, held.long, bool(sounds.notes)))
        damage = corrupt.describe(settings.corruption, settings.amount, settings.noise)
        metadata = {"experiment": settings.experiment, **sounds.metadata}
        strategy = run.workers.strategy
        model = training.build_model(settings, settings.window, "gaussian", metadata, strategy)
        batches = partial(make_batch, settings, sounds)
        for iteration, train_loss in training.train(model, batches, settings, run):
            scores, (windows, long, generated) = evaluate(settings, model, sounds, held)
            shown = sounds.title, damage, iteration, long, generated
            files = sound_figures.checkpoint(plotter, *shown)
            run.log(iteration, {"train_loss": train_loss, **scores}, files)
        ours = own_estimates(settings, model, sounds, held, windows)
        if settings.data and FILTERED in ours:
            filtered = ours[FILTERED][1]
            run.save(sound_figures.restored(plotter, sounds.title, damage, filtered))
        table = final_table(settings, sounds, held, ours)
        run.save(play.files(model, held.windows.clean, held.note, held.long.clean))
        run.finish(model, table)
        print(verdict.sounds(table))
    if settings.data:
        print(f"Longer training helps: try --iters {4 * settings.iters} --out FOLDER")
    say(f"Look at and listen to {settings.out / 'index.html'}")


if __name__ == "__main__":
    with cli.one_line_errors():
        main(cli.parse(Settings, __doc__))
