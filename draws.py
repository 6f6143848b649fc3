"""Random numbers of which every row is itself: row r is the same whoever draws it, and however many others.

TensorFlow's stateless generator counts: four 32-bit numbers a step (Salmon, Moraes, Dror, Shaw 2011, "Parallel random
numbers: as easy as 1, 2, 3"). To draw some rows of a batch alone, as one of several workers does, is to begin at their
count. From row 0 on, the numbers are those of `tf.random.stateless_uniform`.
"""

import functools
import math

from quiet_tensorflow import tf

PHILOX = 1
BYTES_A_STEP = 16


def normal(shape, seed, first=0):
    """Standard normal float32 of this shape, its rows `first` and following of the draw by `seed`.

    The normal distribution's quantiles at uniform numbers: half the time of TensorFlow's own, which are half of what a
    batch of noisy sound takes. Of 2^23 levels, so never beyond 5.3.
    """
    return _quantiles()(uniform(shape, seed, first))


@functools.cache
def _quantiles():
    """Uniform numbers, multiples of 2^-23 in [0, 1), to normal ones; XLA makes one loop of it."""
    return tf.function(lambda u: tf.math.ndtri(u + 2.0**-24), jit_compile=True, autograph=False)


def uniform(shape, seed, first=0, low=0.0, high=1.0):
    """Uniform float32 in [low, high) of this shape, its rows `first` and following of the draw by `seed`."""
    values = _rows(tf.raw_ops.StatelessRandomUniformV2, shape, seed, first, dtype=tf.float32)
    return values if (low, high) == (0, 1) else low + (high - low) * values


def integers(shape, seed, first, high, dtype="int32"):
    """Integers from 0 to below `high`, of this shape, their rows `first` and following of the draw by `seed`."""
    limits = {"minval": tf.constant(0, dtype), "maxval": tf.constant(high, dtype)}
    return _rows(tf.raw_ops.StatelessRandomUniformIntV2, shape, seed, first, **limits)


def _rows(draw, shape, seed, first, **options):
    dtype = options["maxval"].dtype if "maxval" in options else options["dtype"]
    per_step = BYTES_A_STEP // dtype.size  # of its counter
    before = first * math.prod(shape[1:])  # values of other rows; some may share a step with the first of ours
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    counter += tf.constant([before // per_step, 0], tf.uint64)
    ahead = before % per_step
    values = draw(shape=[ahead + math.prod(shape)], key=key, counter=counter, alg=PHILOX, **options)
    return tf.reshape(values[ahead:], shape)
