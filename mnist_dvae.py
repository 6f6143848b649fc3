"""Complete digits of which a part is missing with a denoising VAE.

    python mnist_dvae.py                       # well under a minute on a laptop's CPU
    python mnist_dvae.py --amount 0.4          # twice as much missing
    python mnist_dvae.py --corruption salt-pepper

The encoder sees MNIST digits with a random rectangle, a fifth of the image, blacked out; the network is scored on
the whole digit, so the decoder learns to draw what must have been there.
"""

import run

SHOWN = 16  # held-out digits in the figures
GENERATED = (6, 16)  # rows and columns of new digits


def read_flags():
    return run.parse(run.parser(__doc__.splitlines()[0], iters=2000, latent=32, batch_size=256, out="plots/mnist"))


def main(settings):
    run.start(settings)

    # Imported only now that flags and folder are known to be good: TensorFlow takes seconds to load.
    import numpy as np
    from tqdm import tqdm

    import figures
    import image_utils
    import models
    import training
    from corrupt import CORRUPTIONS
    from image_utils import mean_squared_error
    from quiet_tensorflow import tf

    out = settings.out
    train_images, _, test_images, _, source = image_utils.load_digits()
    print(source)
    train_images = tf.constant(train_images)  # uint8
    shape = train_images.shape[1:]
    pixels = int(np.prod(shape))

    def damage(images, seed):
        return CORRUPTIONS[settings.corruption](images, settings.amount, seed)

    def flat(images):
        return tf.reshape(images, (-1, pixels))

    def make_batch(seed):
        image_seed, damage_seed = tf.unstack(tf.random.split(seed))
        clean = image_utils.random_images(train_images, settings.batch_size, image_seed)
        corrupted, _ = damage(clean, damage_seed)
        return flat(corrupted), flat(clean)

    # What is scored and shown is drawn once, so that two checkpoints differ by training alone.
    held_clean = image_utils.grey(test_images)
    held_damaged, held_mask = damage(held_clean, training.HELD_OUT_SEED)
    mean_image = tf.reduce_mean(image_utils.grey(train_images), axis=0)
    mean_filled = tf.where(held_mask == 1, mean_image, held_damaged)
    mean_fill_error = mean_squared_error(held_clean, mean_filled, held_mask)

    def save_figure(figure, name):
        with run.replacing(out / name) as path:
            figures.save(figure, path)

    models.keras.utils.set_random_seed(settings.seed)  # for the weights' first values
    model = models.DVAE(pixels, "bernoulli", settings.hidden, settings.latent)
    rows = []
    for iteration, train_loss in training.train(
        model, make_batch, iterations=settings.iters, learning_rate=settings.learning_rate, seed=settings.seed
    ):
        held = tf.reshape(model.reconstruct(flat(held_damaged)), held_clean.shape)
        generated = model.generate(int(np.prod(GENERATED)), (settings.seed, training.PRIOR))

        hole_error = mean_squared_error(held_clean, held, held_mask)
        scores = {
            "iteration": iteration,
            "train_loss": train_loss,
            **training.held_out_losses(model, flat(held_damaged), flat(held_clean)),
            "hole_mse": hole_error,
            "hole_mse_over_mean_fill": hole_error / mean_fill_error,
            "mse": mean_squared_error(held_clean, held),
        }
        rows.append(scores)
        run.write_scores(out / "scores.csv", rows)
        tqdm.write(run.score_line(scores))

        name = f"{iteration:06d}"
        what = f"{settings.corruption} {settings.amount:g}, after {iteration} iterations"
        shown = {"original": held_clean[:SHOWN], "damaged": held_damaged[:SHOWN], "reconstructed": held[:SHOWN]}
        figure = figures.digit_rows(f"Held-out digits mended ({what})", shown, {"damaged": held_mask[:SHOWN]})
        save_figure(figure, f"reconstruction_{name}.png")
        new = np.reshape(generated, (*GENERATED, *shape))
        figure = figures.digit_rows(
            f"New digits from the prior ({what})", {str(row + 1): new[row] for row in range(len(new))}
        )
        save_figure(figure, f"generated_{name}.png")

    with run.replacing(out / "model.keras") as path:
        model.save(path)
    print(f"Look at {out / f'reconstruction_{name}.png'}")


if __name__ == "__main__":
    with run.one_line_errors():
        main(read_flags())
