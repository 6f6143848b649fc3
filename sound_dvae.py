"""Mend chopped notes with a denoising VAE that has never heard a whole or a clean one.

    python sound_dvae.py                       # 800 iterations, well under a minute on a laptop's CPU
    python sound_dvae.py --iters 3200          # longer, closer to the bound
    python sound_dvae.py --corruption scatter --amount 0.5
    python sound_dvae.py --timbre plucked --notes C4,E4,G4,C5
    python sound_dvae.py --data recordings     # your own: a file or a folder of WAV, FLAC, OGG, MP3

The seven notes of C major, each a sinusoid buried in white noise, come in windows of 64 ms with a fifth of the
samples missing. The network is scored on the whole noisy window, yet what it learns to draw is the tone.
"""

import argparse
import sys

import run
import workers
from audio_utils import C_MAJOR, NOTE_SECONDS, TIMBRES, note_frequency

ONE_NOTE = 0.9  # a generated sound is one note if one of those it learned explains this share of its energy
HELD_OUT_WINDOWS = 2048
LONG_SECONDS = 3.5  # of the long input, at most, where it is not a scale
HOPS_A_WINDOW = 8  # how many windows cover each sample of the long input
GENERATED = 512  # new sounds scored at each checkpoint
SHOWN = 16  # of them in the figure and the WAV
AUTOREGRESSED = 128  # windows are enough for this baseline, the slowest
OWN_LATENT = 16  # recordings vary in more ways than notes do; 32 is no better
SKIPPED_SHOWN = 5  # files that cannot be used


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


def read_flags():
    flags = run.parser(
        __doc__.splitlines()[0],
        experiment="sound",
        iters=800,
        batch_size=256,
        learning_rate=8e-3,
        hidden=(256, 256, 128),
        latent=5,
        components=200,
    )
    flags.add_argument("--sample-rate", type=run.whole_number, default=16000, help="Hz, at least 1000")
    flags.add_argument("--window", type=run.whole_number, default=1024, help="samples the network sees at once")
    flags.add_argument("--notes", type=notes, default=C_MAJOR, help="of the built-in sounds, e.g. C4,Eb4,F#4")
    flags.add_argument("--timbre", choices=TIMBRES, default="sine", help="of the built-in sounds")
    flags.add_argument(
        "--data",
        help="your own sounds instead: a WAV, FLAC, OGG or MP3 file, or a folder of them; "
        f"--latent is then {OWN_LATENT} unless you say",
    )
    settings = run.parse(flags, latent=OWN_LATENT)
    if settings.sample_rate < 1000:
        flags.error(f"argument --sample-rate: {settings.sample_rate} Hz is too low for sound; at least 1000")
    longest = settings.sample_rate // 4
    if not 64 <= settings.window <= longest:
        flags.error(f"argument --window: {settings.window} samples are not between 64 and {longest}, a quarter second")
    if settings.data is not None:
        if settings.notes != C_MAJOR or settings.timbre != "sine":
            flags.error("argument --data: --notes and --timbre are for the built-in sounds; leave them out")
        return settings
    least, most = settings.sample_rate / settings.window, settings.sample_rate / 2  # a period a window; Nyquist
    for note in settings.notes:
        if not least <= (frequency := note_frequency(note)) < most:
            flags.error(f"argument --notes: {note}, {frequency:.5g} Hz, is not between {least:.5g} and {most:.5g} Hz")
    return settings


def read_own(settings):
    """The user's sounds; says what they are, and on stderr what cannot be used."""
    import audio_utils
    import sound_files

    # On the disk the results go to: the system's folder for such files may be in memory.
    folder = next(folder for folder in (settings.out, *settings.out.parents) if folder.is_dir())
    own = sound_files.load(settings.data, settings.sample_rate, settings.window, audio_utils.RMS, LONG_SECONDS, folder)
    for line in own.skipped[:SKIPPED_SHOWN]:
        print(f"skipped {line}", file=sys.stderr)
    if more := len(own.skipped[SKIPPED_SHOWN:]):
        print(f"skipped {more} more files", file=sys.stderr)
    print(own.summary)
    return own


def main(settings):
    workers.join()
    import audio_utils

    out, rate, window = settings.out, settings.sample_rate, settings.window
    own = read_own(settings) if settings.data is not None else None
    run.start(settings)

    # Imported only now that flags, folder and files are known to be good: TensorFlow takes seconds to load.
    import numpy as np
    from tqdm import tqdm

    import baselines
    import figures
    import models
    import report
    import sound_files
    import training
    from audio_utils import snr_db
    from corrupt import CORRUPTIONS
    from quiet_tensorflow import tf

    known = {"notes": settings.notes, "sample_rate": rate, "timbre": settings.timbre}  # of the built-in sounds

    def draw(count, seed, part, first=0):
        """Windows to learn from or held out: what their mending is scored against, they themselves, their notes."""
        if own:
            clean = sound_files.random_windows(own.samples, own.places[part], count, window, seed, first)
            return clean, clean, None
        return audio_utils.noisy_notes(count=count, samples=window, seed=seed, first=first, **known)

    def damage(sounds, seed, first=0):
        return CORRUPTIONS[settings.corruption](sounds, settings.amount, seed, first)

    def make_batch(seed, first, count):
        sound_seed, damage_seed = tf.unstack(tf.random.split(seed))
        _, clean, _ = draw(count, sound_seed, "training", first)
        corrupted, _ = damage(clean, damage_seed, first)
        return corrupted, clean

    # What is scored and shown is drawn once, so that two checkpoints differ by training alone.
    held_reference, held_clean, held_note = draw(HELD_OUT_WINDOWS, training.HELD_OUT_SEED, "held out")
    held_chopped, held_mask = damage(held_clean, tf.random.fold_in(training.HELD_OUT_SEED, 1))
    held_reference, held_gaps = held_reference.numpy(), held_mask.numpy()

    long_seed = (settings.seed, training.LONG_INPUT)
    if own:
        title, reference, clean = "Held-out sound", own.long, own.long
    else:
        title = "The scale of C major" if settings.notes == C_MAJOR else " ".join(settings.notes)
        title += f", {settings.timbre}" if settings.timbre != "sine" else ""
        reference, clean = audio_utils.noisy_scale(seconds=NOTE_SECONDS, rng=np.random.default_rng(long_seed), **known)
    chopped, gaps = (
        pieces.numpy().ravel()[: clean.size]
        for pieces in damage(tf.constant(audio_utils.cut(clean, window), tf.float32), long_seed)
    )

    def mend(reconstruct, hop=window // HOPS_A_WINDOW):
        return audio_utils.mend(chopped, gaps, reconstruct, window, hop)

    def scores(windows, long):
        """The scores of an estimate of the held-out windows (or the first of them), and of the long input."""
        some, missing = held_reference[: len(windows)], held_gaps[: len(windows)] == 1
        return {
            "snr_db": snr_db(some, windows),
            "gap_snr_db": snr_db(some[missing], windows[missing]),
            "long_snr_db": snr_db(reference, long),
            "long_gap_snr_db": snr_db(reference[gaps == 1], long[gaps == 1]),
            "long_si_sdr_db": audio_utils.si_sdr_db(reference, long),
            "long_lsd_db": audio_utils.log_spectral_distance_db(reference, long, rate),
        }

    gain = min(1.0, 0.99 / np.abs(clean).max())  # one for all WAVs of the run: their levels compare, none clips

    def write_wav(name, sound):
        with run.replacing(out / name) as path:
            audio_utils.write_wav(path, gain * sound, rate)

    def save_figure(name, *pictures):
        with run.replacing(out / name) as path:
            figures.save(path, *pictures)

    write_wav("clean.wav", clean)
    write_wav("chopped.wav", chopped)
    if not own:
        write_wav("tone.wav", reference)
    frequency_limit = audio_utils.frequency_limit(reference, rate)
    picture = figures.sounds(chopped, gaps, rate, frequency_limit)
    chopped_picture = picture("", "chopped input", chopped)

    models.keras.utils.set_random_seed(settings.seed)  # for the weights' first values
    about = {"experiment": "sound", "sample_rate": rate, "rms": audio_utils.RMS}
    if not own:
        about |= {"notes": list(settings.notes), "timbre": settings.timbre}
    with workers.strategy().scope():
        model = models.DVAE(window, "gaussian", settings.hidden, settings.latent, settings.components, about=about)
    rows = []
    for iteration, train_loss in training.train(
        model,
        make_batch,
        batch_size=settings.batch_size,
        iterations=settings.iters,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        rows=rows,
        folder=out,
    ):
        mended = mend(model.reconstruct)
        generated = model.generate(GENERATED, (settings.seed, training.PRIOR)).numpy()
        held = model.reconstruct(held_chopped).numpy()
        rows.append(
            {
                "method": "DVAE",
                "iteration": iteration,
                "train_loss": train_loss,
                **training.held_out_losses(model, held_chopped, held_clean),
                **scores(held, mended),
            }
        )
        if not own:
            share, note = baselines.note_share(generated, **known)
            rows[-1]["generated_one_note"] = np.mean(share >= ONE_NOTE)
            rows[-1]["generated_notes"] = baselines.effective_number(note[share >= ONE_NOTE])
        run.write_scores(out / "scores.csv", rows)
        tqdm.write(run.score_line(rows[-1], ("iteration", "loss", "snr_db", "gap_snr_db", "long_snr_db")))

        name = f"{iteration:06d}"
        what = f"{settings.corruption} {settings.amount:g}, after {iteration} iterations"
        mended_picture = picture(f"{title}, mended ({what})", "reconstruction", mended)
        save_figure(f"reconstruction_{name}.png", mended_picture, chopped_picture)
        figure = figures.windows(f"New sounds from the prior ({what})", generated[:SHOWN], rate)
        save_figure(f"generated_{name}.png", figure)
        write_wav(f"reconstruction_{name}.wav", mended)
        write_wav(f"generated_{name}.wav", audio_utils.one_after_the_other(generated[:SHOWN], rate))

        report.write(out)
        if settings.tensorboard:
            report.write_events(out)

    with run.replacing(out / "model.keras") as path:
        model.save(path)

    # The same scores for what the model must beat, and for the bound it cannot.
    def autoregress(windows):
        return baselines.autoregress(windows, windows == 0)

    def best_note(windows):
        return baselines.best_note(windows, windows == 0, **known)

    held_chopped = held_chopped.numpy()
    ladder = {
        "chopped input": (held_chopped, chopped),
        "linear interpolation": (
            baselines.interpolate(held_chopped, held_gaps),
            baselines.interpolate(chopped[None], gaps[None])[0],
        ),
        f"autoregression (first {AUTOREGRESSED})": (
            autoregress(held_chopped[:AUTOREGRESSED]),
            mend(autoregress, hop=window // 2),
        ),
    }
    if own:
        ladder |= {
            "DVAE": (held, mended),
            "DVAE in the gaps, the input elsewhere": (
                np.where(held_gaps == 1, held, held_chopped),
                np.where(gaps == 1, mended, chopped),
            ),
        }
    else:
        ladder |= {
            "best of the notes": (best_note(held_chopped), mend(best_note)),
            "DVAE": (held, mended),
            "bound: the right note": (
                baselines.right_note(held_chopped, held_gaps, index=held_note.numpy(), **known),
                baselines.right_scale(chopped, gaps, **known),
            ),
        }
    ladder = [{"method": method, **scores(*estimates)} for method, estimates in ladder.items()]
    run.print_table(ladder)
    run.write_scores(out / "scores.csv", rows + [row for row in ladder if row["method"] != "DVAE"])
    report.write(out)
    run.finish(settings)
    print(f"Look at and listen to {out / 'index.html'}")


if __name__ == "__main__":
    with run.one_line_errors():
        main(read_flags())
