// Windows and resampling, for the page and its worker.

const CROSSINGS = 24; // zero crossings of the resampling filter on each side
const STEPS = 256; // entries of its table between two zero crossings
const ROLL_OFF = 0.95; // its passband, relative to half the lower sample rate

/** A Hann window without the zeros at its ends. */
function hann(size) {
  const angle = i => 2 * Math.PI * (i + 1) / (size + 1);
  return Float64Array.from({length: size}, (_, i) => 0.5 - 0.5 * Math.cos(angle(i)));
}

/** Half of a Hann-windowed sinc, with `STEPS` entries per zero crossing. */
function filterTable() {
  return Float64Array.from({length: CROSSINGS * STEPS + 2}, (_, i) => {
    const t = i / STEPS, angle = Math.PI * t;
    if (t >= CROSSINGS) return 0;
    return (t ? Math.sin(angle) / angle : 1) * Math.cos(angle / CROSSINGS / 2) ** 2;
  });
}

/** Resample a sound between two rates in Hz and return `length` samples. */
function resample(sound, from, to, length) {
  const table = filterTable(), cut = ROLL_OFF * Math.min(1, to / from), reach = CROSSINGS / cut;
  return Float32Array.from({length}, (_, n) => {
    const center = n * from / to, end = Math.min(Math.floor(center + reach), sound.length - 1);
    let sum = 0;
    for (let k = Math.max(0, Math.ceil(center - reach)); k <= end; k++) {
      const place = Math.abs(k - center) * cut * STEPS, step = Math.floor(place);
      sum += sound[k] * (table[step] + (place - step) * (table[step + 1] - table[step]));
    }
    return cut * sum;
  });
}
