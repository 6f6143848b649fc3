"""Kind of a trained model: whether it is for sounds or images, and its training data."""

import math
from dataclasses import dataclass

from audio_utils import C_MAJOR, RMS, SAMPLE_RATES, TIMBRES, Notes, note_frequency
from harness import UserError


@dataclass(frozen=True)
class Kind:
    """Facts about a model's data, read from its metadata and checked by `kind_of`."""

    shape: tuple | None = None  # (height, width) of images; None for sounds
    sample_rate: int | None = None  # Hz; None for images
    rms: float | None = None  # RMS level of the training sounds; None for images
    notes: Notes | None = None  # the built-in notes; None for recordings and images
    data: str | None = None  # path of the training images; None for MNIST and sounds
    sha256: str | None = None  # hash of the training data; None for notes and some old models

    @property
    def sounds(self):
        return self.shape is None

    @property
    def recordings(self):
        """True for a model of the user's own recordings."""
        return self.sounds and self.notes is None


def kind_of(metadata, input_size, path="this model"):
    """Return the `Kind` of a model. Raises UserError naming `path` if the metadata fit no kind.

    Models of the first versions lack "rms", "notes" and "timbre". They are for sines in C major.
    """
    rate, shape, rms = (metadata.get(name) for name in ("sample_rate", "shape", "rms"))
    sha256 = metadata.get("sha256")
    if rate is None and _is_shape(shape, input_size):
        return Kind(shape=tuple(shape), data=metadata.get("data"), sha256=sha256)
    names = metadata.get("notes", None if rms else list(C_MAJOR))
    timbre = metadata.get("timbre", "sine")
    rate_fits = isinstance(rate, int) and SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]
    level_fits = rms is None or (isinstance(rms, int | float) and 0 < rms < math.inf)
    if shape is None and rate_fits and level_fits and _are_notes(names, timbre):
        notes = names and Notes(tuple(names), timbre, rate, input_size)
        return Kind(sample_rate=rate, rms=rms or RMS, notes=notes, sha256=sha256)
    problem = "a model of neither sounds nor images"
    raise UserError(f"{path}: {problem}; train one with sound_dvae.py or mnist_dvae.py")


def _is_shape(shape, input_size):
    if not isinstance(shape, list) or not all(isinstance(side, int) for side in shape):
        return False
    return len(shape) == 2 and min(shape) > 0 and math.prod(shape) == input_size


def _are_notes(names, timbre):
    """Return True if `names` is None or a list of note names, and the timbre is known."""
    try:
        known = isinstance(names, list) and [note_frequency(name) for name in names]
    except (ValueError, TypeError):
        return False
    return (names is None or bool(known)) and timbre in tuple(TIMBRES)  # it may be unhashable
