"""Fill the gaps and remove the noise of one channel of a sound file, at its own sample rate."""

import numpy as np

from harness.threads import in_threads
from signals import hum, noise
from signals.gaps import inside

EXCERPTS, EXCERPT_SECONDS = 10, 2  # parts from which noise and mixture weights are estimated
SILENT = 0.1  # maximum RMS of a silent part, relative to the mean RMS
PIECE = 250  # hops (8 s); restored at once
MARGIN = 19  # hops (0.6 s); read on both sides of a piece, because gaps are filled from there


class Denoiser:
    """Fills the gaps of a channel and removes its mains hum and its steady noise.

    read(first, end) returns samples of the channel, 0 in gaps and beyond its end. gaps: stretches
    (n, 2) to fill. rate: in Hz. reconstruct(sound, mask, first) returns the network's output for a
    part that begins at the sample `first`: (T,), (T,) -> (T,). The mask is 1, and the sound 0,
    where the network must not see it.
    """

    def __init__(self, read, gaps, samples, rate, reconstruct):
        self.read, self.gaps, self.samples = read, gaps, samples
        self.rate, self.reconstruct, self.hop = rate, reconstruct, noise.transform(rate).hop
        self.removed = np.zeros(3)  # energy of noise, energy of the sound beside it, samples
        excerpts, self.level = self._excerpts()
        self.hum = ()  # so that `_part` removes none yet
        self.hum = hum.find_hum([self._part(*excerpt)[0] for excerpt in excerpts], self.rate)
        parts = (self._part(*excerpt) for excerpt in excerpts)
        observed, mask = (np.concatenate(each) for each in zip(*parts))
        ends = np.cumsum(np.ptp(excerpts, axis=1))[:-1]

        def restore(sound, mask):
            parts = zip(np.split(sound, ends), np.split(mask, ends), excerpts[:, 0])
            return np.concatenate([self.reconstruct(*part) for part in parts])

        size = noise.typical_size(gaps)
        self.calibrated = noise.calibrate(observed, mask, self.rate, restore, size)
        self.silent = not observed.any()

    def _excerpts(self):
        """Return stretches (n, 2) of sound, spread over the channel, and the channel's mean RMS."""
        size = EXCERPT_SECONDS * self.rate
        firsts = np.arange(0, self.samples, size)
        excerpts = np.stack([firsts, np.minimum(firsts + size, self.samples)], 1)
        rms = np.array([self.read(*excerpt).std() for excerpt in excerpts])
        excerpts = excerpts[rms >= SILENT * rms.mean()]
        chosen = np.linspace(0, len(excerpts) - 1, min(EXCERPTS, len(excerpts))).astype(int)
        return excerpts[chosen], rms.mean() or 1.0

    def pieces(self):
        """Yield the restored channel in pieces (n,)."""
        piece, margin = PIECE * self.hop, MARGIN * self.hop

        def restored(first, end):
            start, end = max(first - margin, 0), min(end, self.samples)
            observed, mask = self._part(start, min(end + margin, self.samples))
            drawn = self.reconstruct(observed, mask, start)
            result, noisy = noise.denoise(observed, mask, drawn, self.rate, *self.calibrated)
            own = slice(first - start, end - start)
            noisy = (noisy & (mask == 0))[own]
            removed, kept = (observed - result)[own][noisy], result[own][noisy]
            return self.level * result[own], (removed @ removed, kept @ kept, noisy.sum())

        firsts = range(0, self.samples, piece)
        for result, removed in in_threads(restored, ((first, first + piece) for first in firsts)):
            self.removed += removed
            yield result

    def _part(self, first, end):
        """Return samples without hum, and mask, of [first, end), extended to at least a frame."""
        end = max(end, first + self.hop * noise.FRAMES_PER_SAMPLE)
        margin = hum.MARGIN_SECONDS * self.rate if len(self.hum) else 0
        start, mask = max(first - margin, 0), inside(self.gaps, first, end)
        sound = self.read(start, end + margin) / self.level  # float32 is enough for its spectra
        sound = hum.without_hum(sound, self.hum, self.rate)
        return np.where(mask, 0, sound[first - start :][: mask.size]), mask.astype(int)
