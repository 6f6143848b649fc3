"""Fill the gaps and remove the noise of one channel of a sound file, at its own sample rate."""

import numpy as np

from audio_utils import runs
from signals import noise
from signals.gaps import inside
from signals.resampling import resample

PILOT_SECONDS = 20  # duration from which noise and mixture weights are estimated
PIECE_SECONDS = 8  # duration restored at once
MARGIN_SECONDS = 0.6  # read on both sides of a piece, because gaps are filled from nearby samples


class Denoiser:
    """Fills the gaps of a channel and removes its steady noise, which is estimated once.

    read(first, end) returns samples of the channel, 0 in gaps and beyond its end. gaps: stretches
    (n, 2) to fill. hidden: other stretches to hide from the network. rates: the channel's and the
    model's, in Hz. reconstruct(sound, mask) returns the network's output at the model's rate:
    (T,), (T,) -> (T,). The mask is True, and the sound 0, where the network must not see it.
    """

    def __init__(self, read, gaps, hidden, samples, rates, reconstruct):
        self.read, self.gaps, self.hidden, self.samples = read, gaps, hidden, samples
        (self.rate, self.model_rate), self.reconstruct = rates, reconstruct
        self.hop = noise.transform(self.rate).hop
        pilot = PILOT_SECONDS * self.rate
        middle = gaps[len(gaps) // 2, 0] if len(gaps) else samples // 2
        first = max(0, min(middle - pilot // 2, samples - pilot))
        observed, mask = self._part(first, min(first + pilot, samples))
        self.power, self.level_db, self.weights = noise.calibrate(
            observed, mask, self.rate, lambda sound, mask: self._reconstruct(sound, mask, first)
        )

    def pieces(self):
        """Yield the restored channel in pieces (n,)."""
        piece, margin = (
            round(seconds * self.rate / self.hop) * self.hop
            for seconds in (PIECE_SECONDS, MARGIN_SECONDS)
        )
        for first in range(0, self.samples, piece):
            start, end = max(first - margin, 0), min(first + piece, self.samples)
            observed, mask = self._part(start, min(end + margin, self.samples))
            drawn = self._reconstruct(observed, mask, start)
            restored = noise.denoise(observed, mask, drawn, self.rate, self.power, self.weights)
            yield restored[first - start : end - start]

    def _part(self, first, end):
        """Return samples and mask of [first, end), extended to one frame if it is shorter."""
        end = max(end, first + self.hop * noise.FRAMES_PER_SAMPLE)
        return self.read(first, end).astype(float), inside(self.gaps, first, end).astype(int)

    def _reconstruct(self, sound, mask, first):
        """Return the network's output, resampled to the channel's rate: (T,), (T,) -> (T,)."""
        ratio = self.model_rate / self.rate
        low = _resampled(np.where(mask == 1, 0, sound), self.rate, self.model_rate)
        unseen = np.zeros(low.size, bool)
        for start, end in runs(mask | inside(self.hidden, first, first + sound.size)) * ratio:
            unseen[int(start) : int(np.ceil(end))] = True
        output = self.reconstruct(low * ~unseen, unseen)
        output = _resampled(output, self.model_rate, self.rate)
        return np.pad(output, (0, max(0, sound.size - output.size)))[: sound.size]


def _resampled(sound, old_rate, new_rate):
    blocks = resample([np.float32(sound)[:, None]], 1, old_rate, new_rate)
    return np.concatenate(list(blocks))[:, 0]
