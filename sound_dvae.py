"""Mend chopped notes with a denoising VAE that has never heard a whole or a clean one.

    python sound_dvae.py                       # 800 iterations, well under a minute on a laptop's CPU
    python sound_dvae.py --iters 3200          # longer, closer to the bound
    python sound_dvae.py --corruption scatter --amount 0.5

The seven notes of C major, each a sinusoid buried in white noise, come in windows of 64 ms with a fifth of the
samples missing. The network is scored on the whole noisy window, yet what it learns to draw is the tone.
"""

import run

ONE_NOTE = 0.9  # a generated sound is one note if one of the seven explains this share of its energy
HELD_OUT_WINDOWS = 2048
NOTE_SECONDS = 0.5  # of each note in the long input
HOPS_A_WINDOW = 8  # how many windows cover each sample of the long input
GENERATED = 512  # new sounds scored at each checkpoint
SHOWN = 16  # of them in the figure and the WAV
AUTOREGRESSED = 256  # windows are enough for this baseline, the slowest


def read_flags():
    flags = run.parser(
        __doc__.splitlines()[0],
        experiment="sound",
        iters=800,
        batch_size=256,
        learning_rate=8e-3,
        hidden=(256, 256, 128),
        latent=5,
    )
    flags.add_argument("--sample-rate", type=run.whole_number, default=16000, help="Hz, at least 1000")
    flags.add_argument("--window", type=run.whole_number, default=1024, help="samples the network sees at once")
    settings = run.parse(flags)
    if settings.sample_rate < 1000:
        flags.error(f"argument --sample-rate: {settings.sample_rate} Hz is too low for the notes; at least 1000")
    longest = settings.sample_rate // 4
    if not 64 <= settings.window <= longest:
        flags.error(f"argument --window: {settings.window} samples are not between 64 and {longest}, a quarter second")
    return settings


def main(settings):
    run.start(settings)

    # Imported only now that flags and folder are known to be good: TensorFlow takes seconds to load.
    import numpy as np
    from tqdm import tqdm

    import audio_utils
    import baselines
    import figures
    import models
    import report
    import training
    from audio_utils import C_MAJOR, noisy_notes, snr_db
    from corrupt import CORRUPTIONS
    from quiet_tensorflow import tf

    out, rate, window = settings.out, settings.sample_rate, settings.window

    def damage(sounds, seed):
        return CORRUPTIONS[settings.corruption](sounds, settings.amount, seed)

    def make_batch(seed):
        sound_seed, damage_seed = tf.unstack(tf.random.split(seed))
        _, clean, _ = noisy_notes(C_MAJOR, settings.batch_size, window, rate, sound_seed)
        corrupted, _ = damage(clean, damage_seed)
        return corrupted, clean

    # What is scored and shown is drawn once, so that two checkpoints differ by training alone.
    held_tone, held_clean, held_note = noisy_notes(C_MAJOR, HELD_OUT_WINDOWS, window, rate, training.HELD_OUT_SEED)
    held_chopped, held_mask = damage(held_clean, tf.random.fold_in(training.HELD_OUT_SEED, 1))
    held_tone, held_note, held_gaps = held_tone.numpy(), held_note.numpy(), held_mask.numpy()

    long_seed = (settings.seed, training.LONG_INPUT)
    tone, clean = audio_utils.noisy_scale(C_MAJOR, NOTE_SECONDS, rate, np.random.default_rng(long_seed))
    chopped, gaps = (
        pieces.numpy().ravel()[: clean.size]
        for pieces in damage(tf.constant(audio_utils.cut(clean, window), tf.float32), long_seed)
    )

    def mend(reconstruct, hop=window // HOPS_A_WINDOW):
        return audio_utils.mend(chopped, gaps, reconstruct, window, hop)

    def scores(windows, long):
        """The scores of an estimate of the held-out windows' tones (or the first of them), and of the long tone."""
        some = slice(len(windows))
        return {
            "snr_db": snr_db(held_tone[some], windows),
            "gap_snr_db": snr_db(held_tone[some][held_gaps[some] == 1], windows[held_gaps[some] == 1]),
            "long_snr_db": snr_db(tone, long),
            "long_gap_snr_db": snr_db(tone[gaps == 1], long[gaps == 1]),
            "long_si_sdr_db": audio_utils.si_sdr_db(tone, long),
            "long_lsd_db": audio_utils.log_spectral_distance_db(tone, long, rate),
        }

    gain = min(1.0, 0.99 / np.abs(clean).max())  # one for all WAVs of the run: their levels compare, none clips

    def write_wav(name, sound):
        with run.replacing(out / name) as path:
            audio_utils.write_wav(path, gain * sound, rate)

    def save_figure(figure, name):
        with run.replacing(out / name) as path:
            figures.save(figure, path)

    for name, sound in {"tone.wav": tone, "clean.wav": clean, "chopped.wav": chopped}.items():
        write_wav(name, sound)

    models.keras.utils.set_random_seed(settings.seed)  # for the weights' first values
    about = {"experiment": "sound", "sample_rate": rate}
    model = models.DVAE(window, "gaussian", settings.hidden, settings.latent, about)
    rows = []
    for iteration, train_loss in training.train(
        model,
        make_batch,
        iterations=settings.iters,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        rows=rows,
        folder=out,
    ):
        mended = mend(model.reconstruct)
        generated = model.generate(GENERATED, (settings.seed, training.PRIOR)).numpy()
        share, note = baselines.note_share(generated, C_MAJOR, rate)
        held = model.reconstruct(held_chopped).numpy()
        rows.append(
            {
                "method": "DVAE",
                "iteration": iteration,
                "train_loss": train_loss,
                **training.held_out_losses(model, held_chopped, held_clean),
                **scores(held, mended),
                "generated_one_note": np.mean(share >= ONE_NOTE),
                "generated_notes": baselines.effective_number(note[share >= ONE_NOTE]),
            }
        )
        run.write_scores(out / "scores.csv", rows)
        tqdm.write(run.score_line(rows[-1], ("iteration", "loss", "snr_db", "gap_snr_db", "long_snr_db")))

        name = f"{iteration:06d}"
        what = f"{settings.corruption} {settings.amount:g}, after {iteration} iterations"
        figure = figures.mended(f"The scale of C major, mended ({what})", mended, chopped, gaps, rate)
        save_figure(figure, f"reconstruction_{name}.png")
        figure = figures.windows(f"New sounds from the prior ({what})", generated[:SHOWN], rate)
        save_figure(figure, f"generated_{name}.png")
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
        return baselines.best_note(windows, windows == 0, C_MAJOR, rate)

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
        "best of the seven notes": (best_note(held_chopped), mend(best_note)),
        "DVAE": (held, mended),
        "bound: the right note": (
            baselines.right_note(held_chopped, held_gaps, C_MAJOR, rate, held_note),
            baselines.right_scale(chopped, gaps, C_MAJOR, rate),
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
