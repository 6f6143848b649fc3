"""A channel of a sound file restored piece by piece: gaps filled, noise taken out, at the file's own rate."""

import numpy as np

import audio_utils
from signals import noise
from signals.gaps import inside
from signals.resampling import resample

PILOT_SECONDS = 20  # of the sound, in which its noise and what fills gaps best are told
PIECE_SECONDS, MARGIN_SECONDS = (
    8,
    0.6,
)  # restored at once; looked at on both sides, as far as a gap's filling looks


class Denoiser:
    """The posterior mean of one channel, whose noise is steady.

    read(first, end): of its `samples`, 0 in gaps and beyond the end. gaps, hidden: stretches (n, 2), to be filled, and
    what the network is not to see either. rates: of the channel and of the model, Hz. draw(sound, hidden, first): what
    the network makes of a part at the model's rate that begins at that sample, where it is not hidden: (T,), (T,) ->
    (T,).
    """

    def __init__(self, read, gaps, hidden, samples, rates, draw):
        self.read, self.gaps, self.hidden, self.samples = read, gaps, hidden, samples
        (self.rate, self.model_rate), self.draw = rates, draw
        self.hop, pilot = noise.transform(self.rate).hop, PILOT_SECONDS * self.rate
        middle = gaps[len(gaps) // 2, 0] if len(gaps) else samples // 2
        first = max(0, min(middle - pilot // 2, samples - pilot))
        observed, mask = self._part(first, min(first + pilot, samples))
        self.power, self.level_db, self.weights = noise.calibrate(
            observed, mask, self.rate, lambda sound, missing: self._redraw(sound, missing, first)
        )

    def pieces(self):
        """The restored channel, piece by piece: (n,)."""
        piece, margin = (
            round(s * self.rate / self.hop) * self.hop for s in (PIECE_SECONDS, MARGIN_SECONDS)
        )
        for first in range(0, self.samples, piece):
            start, end = max(first - margin, 0), min(first + piece, self.samples)
            observed, mask = self._part(start, min(end + margin, self.samples))
            drawn = self._redraw(observed, mask, start)
            whole = noise.denoise(observed, mask, drawn, self.rate, self.power, self.weights)
            yield whole[first - start : end - start]

    def _part(self, first, end):
        """Samples and mask of a part; zeros behind it if it is shorter than a frame, which nobody hears."""
        end = max(end, first + self.hop * noise.FRAMES_A_SAMPLE)
        return self.read(first, end).astype(float), inside(self.gaps, first, end).astype(int)

    def _redraw(self, sound, mask, first):
        """What the network makes of a part that begins at the sample `first`: (T,), (T,) -> (T,)."""
        ratio = self.model_rate / self.rate
        low = self._resampled(np.where(mask == 1, 0, sound), self.rate, self.model_rate)
        unseen = np.zeros(low.size, bool)
        for start, end in (
            audio_utils.runs(mask | inside(self.hidden, first, first + sound.size)) * ratio
        ):
            unseen[int(start) : int(np.ceil(end))] = True
        drawn = self._resampled(
            self.draw(low * ~unseen, unseen, round(first * ratio)), self.model_rate, self.rate
        )
        return np.pad(drawn, (0, max(0, sound.size - drawn.size)))[: sound.size]

    @staticmethod
    def _resampled(sound, old_rate, new_rate):
        return np.concatenate(list(resample([np.float32(sound)[:, None]], 1, old_rate, new_rate)))[
            :, 0
        ]
