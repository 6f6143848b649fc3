"""Mend chopped notes with a denoising VAE that has never heard a whole or a clean one.

    python sound_dvae.py                       # 800 iterations, well under a minute on a laptop's CPU
    python sound_dvae.py --iters 3200          # longer, closer to the bound
    python sound_dvae.py --corruption scatter --amount 0.5

The seven notes of C major, each a sinusoid buried in white noise, come in windows of 64 ms with a fifth of the
samples missing. The network is scored on the whole noisy window, yet what it learns to draw is the tone.
"""

import run

HELD_OUT_WINDOWS = 2048
NOTE_SECONDS = 0.5  # of each note in the long input
HOPS_A_WINDOW = 16  # how many windows cover each sample of the long input
GENERATED = 16  # new sounds at each checkpoint


def read_flags():
    flags = run.parser(__doc__.splitlines()[0], iters=800, latent=6, batch_size=256, out="plots/sound")
    flags.add_argument("--sample-rate", type=run.whole_number, default=16000, help="Hz, at least 1000")
    flags.add_argument("--window", type=run.whole_number, default=1024, help="samples the network sees at once")
    settings = run.parse(flags)
    if settings.sample_rate < 1000:
        flags.error(f"argument --sample-rate: {settings.sample_rate} Hz is too low for the notes; at least 1000")
    if not 64 <= settings.window <= settings.sample_rate:
        flags.error(f"argument --window: {settings.window} samples is not between 64 and one second")
    return settings


def main(settings):
    run.start(settings)

    # Imported only now that flags and folder are known to be good: TensorFlow takes seconds to load.
    import numpy as np
    from tqdm import tqdm

    import audio_utils
    import figures
    import models
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
    held_tone, held_clean, _ = noisy_notes(C_MAJOR, HELD_OUT_WINDOWS, window, rate, training.HELD_OUT_SEED)
    held_chopped, held_mask = damage(held_clean, tf.random.fold_in(training.HELD_OUT_SEED, 1))

    long_seed = (settings.seed, training.LONG_INPUT)
    tone, clean = audio_utils.noisy_scale(C_MAJOR, NOTE_SECONDS, rate, np.random.default_rng(long_seed))
    chopped, mask = (
        pieces.numpy().ravel()[: clean.size]
        for pieces in damage(tf.constant(audio_utils.cut(clean, window), tf.float32), long_seed)
    )
    in_gaps = mask == 1
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
    model = models.DVAE(window, "gaussian", settings.hidden, settings.latent)
    rows = []
    for iteration, train_loss in training.train(
        model, make_batch, iterations=settings.iters, learning_rate=settings.learning_rate, seed=settings.seed
    ):
        mended = audio_utils.mend(chopped, mask, model.reconstruct, window, window // HOPS_A_WINDOW)
        generated = model.generate(GENERATED, (settings.seed, training.PRIOR)).numpy()

        held = model.reconstruct(held_chopped)
        missing = held_mask == 1
        scores = {
            "iteration": iteration,
            "train_loss": train_loss,
            **training.held_out_losses(model, held_chopped, held_clean),
            "snr_db": snr_db(held_tone, held),
            "gap_snr_db": snr_db(held_tone[missing], held[missing]),
            "long_snr_db": snr_db(tone, mended),
            "long_gap_snr_db": snr_db(tone[in_gaps], mended[in_gaps]),
            "long_si_sdr_db": audio_utils.si_sdr_db(tone, mended),
        }
        rows.append(scores)
        run.write_scores(out / "scores.csv", rows)
        tqdm.write(run.score_line(scores))

        name = f"{iteration:06d}"
        what = f"{settings.corruption} {settings.amount:g}, after {iteration} iterations"
        save_figure(
            figures.mended(f"The scale of C major, mended ({what})", mended, chopped, mask, rate),
            f"reconstruction_{name}.png",
        )
        save_figure(figures.windows(f"New sounds from the prior ({what})", generated, rate), f"generated_{name}.png")
        write_wav(f"reconstruction_{name}.wav", mended)
        write_wav(f"generated_{name}.wav", audio_utils.one_after_the_other(generated, rate))

    with run.replacing(out / "model.keras") as path:
        model.save(path)
    print(f"Look at {out / f'reconstruction_{name}.png'}, listen to {out / f'reconstruction_{name}.wav'}")


if __name__ == "__main__":
    with run.one_line_errors():
        main(read_flags())
