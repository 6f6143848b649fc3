"""Complete digits of which a part is missing with a denoising VAE.

    python mnist_dvae.py                       # about a minute on a laptop's CPU
    python mnist_dvae.py --amount 0.4          # twice as much missing
    python mnist_dvae.py --corruption salt-pepper
    python mnist_dvae.py --data photos --size 32    # a folder of your own images

The encoder sees MNIST digits with a random rectangle, a fifth of the image, blacked out; the network is scored on
the whole digit, so the decoder learns to draw what must have been there.
"""

import os

import run
import workers

HELD_OUT = 2000  # digits scored, at most
SCORED_PIXELS = 2**25  # in all, at most: there are fewer of large images
NEAREST_PIXELS = 2**27  # of training images that are searched for the nearest, at most
GENERATED = 1000  # new digits scored at each checkpoint
SHOWN, NEW_ROWS = 16, 6  # digits a row in the figures; rows of new ones


def read_flags():
    flags = run.parser(
        __doc__.splitlines()[0],
        experiment="mnist",
        iters=8000,
        batch_size=128,
        learning_rate=2e-3,
        hidden=(512, 512),
        latent=32,
        components=200,
    )
    flags.add_argument(
        "--data",
        help="your own images instead of MNIST: a folder of any that Pillow reads, searched with all below it; or of "
        "MNIST's original files; or an .npz file with Keras's keys or one array (count, H, W); "
        "--deform is then 0 unless you say",
    )
    flags.add_argument(
        "--size",
        type=run.whole_number,
        default=28,
        help="pixels a side of a folder's images: their middle square, rescaled; 4 to 256",
    )
    flags.add_argument(
        "--deform",
        type=float,
        default=0.1,
        help="images learned from are turned and sheared at random: standard deviation of the slopes; 0: not at all",
    )
    settings = run.parse(flags, deform=0.0)
    if settings.data == "":
        flags.error("argument --data: is empty; give a folder or a file, or leave it out")
    if not 0 <= settings.deform < 1:
        flags.error(f"argument --deform: {settings.deform:g} is not a number from 0 to below 1")
    if not 4 <= settings.size <= 256:
        flags.error(f"argument --size: {settings.size} is not between 4 and 256 pixels")
    return settings


def main(settings):
    workers.join()
    # Imported only now that the flags are known to be good: TensorFlow takes seconds to load.
    import image_utils

    train_images, train_labels, test_images, test_labels, source = image_utils.load_images(settings.data, settings.size)
    run.start(settings)
    print(source)

    import numpy as np
    from tqdm import tqdm

    import baselines
    import figures
    import models
    import report
    import training
    from corrupt import CORRUPTIONS
    from image_utils import mean_squared_error
    from quiet_tensorflow import tf

    out = settings.out
    kind = "image" if settings.data else "digit"
    shape = train_images.shape[1:]
    pixels = int(np.prod(shape))
    scored = SCORED_PIXELS // pixels  # at most
    on_disk = isinstance(train_images, np.memmap)
    all_images = train_images if on_disk else tf.constant(train_images)  # uint8

    def damage(images, seed, first=0):
        return CORRUPTIONS[settings.corruption](images, settings.amount, seed, first)

    def flat(images):
        return tf.reshape(images, (-1, pixels))

    def make_batch(seed, first, count):
        image_seed, deform_seed, damage_seed = tf.unstack(tf.random.split(seed, 3))
        clean = image_utils.random_images(all_images, count, image_seed, first)
        if settings.deform:
            clean = image_utils.deformed(clean, settings.deform, deform_seed, first)
        corrupted, _ = damage(clean, damage_seed, first)
        return flat(corrupted), flat(clean)

    # What is scored and shown is drawn once, so that two checkpoints differ by training alone.
    held_clean = image_utils.grey(test_images[: min(HELD_OUT, scored)])
    held_damaged, held_mask = (part.numpy() for part in damage(held_clean, training.HELD_OUT_SEED))
    held_clean = held_clean.numpy()
    mean_image = image_utils.mean_image(train_images)
    mean_filled = np.where(held_mask == 1, mean_image, held_damaged)
    mean_fill_error = mean_squared_error(held_clean, mean_filled, held_mask)
    classifier = None
    if train_labels is not None:
        classifier = baselines.digit_classifier(train_images[:scored], train_labels[:scored])

    def scores(images):
        """The scores of an estimate of the held-out digits."""
        hole_error = mean_squared_error(held_clean, images, held_mask)
        row = {
            "hole_mse": hole_error,
            "hole_mse_over_mean_fill": hole_error / mean_fill_error,
            "mse": mean_squared_error(held_clean, images),
        }
        if classifier:
            row["classifier_error"] = np.mean(classifier.predict(flat(images)) != test_labels[: len(held_clean)])
        return row

    def save_figure(name, figure):
        with run.replacing(out / name) as path:
            figures.save(path, figure)

    models.keras.utils.set_random_seed(settings.seed)  # for the weights' first values
    about = {"experiment": "mnist", "shape": list(shape), "data": settings.data and os.path.abspath(settings.data)}
    with workers.strategy().scope():
        model = models.DVAE(pixels, "bernoulli", settings.hidden, settings.latent, settings.components, about=about)
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
        held = np.reshape(model.reconstruct(flat(held_damaged)), held_clean.shape)
        generated = model.generate(min(GENERATED, scored), (settings.seed, training.PRIOR)).numpy()
        rows.append(
            {
                "method": "DVAE",
                "iteration": iteration,
                "train_loss": train_loss,
                **training.held_out_losses(model, flat(held_damaged), flat(held_clean)),
                **scores(held),
            }
        )
        if classifier:
            confidence = classifier.predict_proba(generated)
            rows[-1]["generated_confidence"] = confidence.max(1).mean()
            rows[-1]["generated_classes"] = baselines.effective_number(confidence.argmax(1))
        run.write_scores(out / "scores.csv", rows)
        told = ("iteration", "loss", "hole_mse_over_mean_fill", *["classifier_error"] * bool(classifier))
        tqdm.write(run.score_line(rows[-1], told))

        name = f"{iteration:06d}"
        what = f"{settings.corruption} {settings.amount:g}, after {iteration} iterations"
        shown = {"original": held_clean[:SHOWN], "damaged": held_damaged[:SHOWN], "reconstructed": held[:SHOWN]}
        title = f"Held-out {kind}s mended ({what}); red: damaged"
        figure = figures.digit_rows(title, shown, {"damaged": held_mask[:SHOWN]})
        save_figure(f"reconstruction_{name}.png", figure)
        new = generated[: NEW_ROWS * SHOWN].reshape(NEW_ROWS, SHOWN, *shape)
        figure = figures.digit_rows(
            f"New {kind}s from the prior ({what})", {str(i + 1): row for i, row in enumerate(new)}
        )
        save_figure(f"generated_{name}.png", figure)

        report.write(out)
        if settings.tensorboard:
            report.write_events(out)

    with run.replacing(out / "model.keras") as path:
        model.save(path)

    # The same scores for what the model must beat, and those of the digits before they were damaged.
    nearest = baselines.nearest_fill(held_damaged, held_mask, train_images[: NEAREST_PIXELS // pixels])
    ladder = {
        "holes black (the input)": held_damaged,
        f"holes filled with the mean {kind}": mean_filled,
        f"holes filled from the nearest {kind}": nearest,
        "DVAE": held,
        "holes filled by the DVAE": np.where(held_mask == 1, held, held_damaged),
        "originals": held_clean,
    }
    ladder = [{"method": method, **scores(images)} for method, images in ladder.items()]
    run.print_table(ladder)
    run.write_scores(out / "scores.csv", rows + [row for row in ladder if row["method"] != "DVAE"])
    report.write(out)
    run.finish(settings)
    print(f"Look at {out / 'index.html'}")


if __name__ == "__main__":
    with run.one_line_errors():
        main(read_flags())
