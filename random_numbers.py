"""Standard normal random numbers, generated faster than by TensorFlow."""

import functools

from harness.quiet_tensorflow import tf


def normal(shape, seed):
    """Return standard normal float32 numbers of a shape. `seed` is a pair of integers.

    They are normal quantiles of uniform numbers. This is twice as fast as
    `tf.random.stateless_normal`. There are 2^23 possible values, none beyond 5.3 in magnitude.
    """
    return _quantiles()(tf.random.stateless_uniform(shape, seed))


@functools.cache
def _quantiles():
    """Return a compiled function that maps multiples of 2^-23 in [0, 1) to normal quantiles."""
    return tf.function(lambda u: tf.math.ndtri(u + 2.0**-24), jit_compile=True, autograph=False)
