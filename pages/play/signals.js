// Tapers, levels, silence and resampling, used by the page and its worker.
const CROSSINGS = 24; // zero crossings of the resampling filter on each side
const STEPS = 256; // entries of the filter's table per zero crossing
const ROLL_OFF = 0.95; // the filter's cutoff, relative to half the lower sample rate

const peakOf = values => values.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0);
const hann = size => new Float64Array(size).map(
  (_, i) => Math.sin(Math.PI * (i + 1) / (size + 1)) ** 2);
function median(values) {
  const sorted = Float64Array.from(values).sort(), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Return a copy of a sound with the stretches [start, end] set to 0. */
function silenced(values, stretches) {
  const copy = values.slice();
  for (const [start, end] of stretches) copy.fill(0, start, end);
  return copy;
}

/** Resample a sound to another rate and to `length` samples, by a Hann-windowed sinc. */
function resample(sound, from, to, length) {
  if (from === to) return sound.slice(0, length);
  const table = new Float64Array(CROSSINGS * STEPS + 2).map((_, i) => {
    const t = i / STEPS, angle = Math.PI * t, sinc = t ? Math.sin(angle) / angle : 1;
    return t < CROSSINGS ? sinc * Math.cos(angle / CROSSINGS / 2) ** 2 : 0;
  });
  const cut = ROLL_OFF * Math.min(1, to / from), reach = CROSSINGS / cut;
  return new Float32Array(length).map((_, n) => {
    const center = n * from / to, end = Math.min(Math.floor(center + reach), sound.length - 1);
    let sum = 0;
    for (let k = Math.max(0, Math.ceil(center - reach)); k <= end; k++) {
      const place = Math.abs(k - center) * cut * STEPS, step = Math.floor(place);
      sum += sound[k] * (table[step] + (place - step) * (table[step + 1] - table[step]));
    }
    return cut * sum;
  });
}
