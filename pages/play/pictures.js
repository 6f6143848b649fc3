// Waveforms and spectrograms.
const MAGMA = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
const COLUMNS = 300; // of a spectrogram

/** Return a function that maps `size` real values, a power of two, to the size / 2 magnitudes of
 * their spectrum, by a fast Fourier transform. It reuses its tables and arrays. */
function spectrumOf(size) {
  const middle = size >> 1, table = new Float64Array(middle), reversed = new Uint32Array(size);
  const cosines = table.map((_, i) => Math.cos(Math.PI * i / middle));
  const sines = table.map((_, i) => -Math.sin(Math.PI * i / middle));
  const re = new Float64Array(size), im = re.slice();
  for (let i = 1; i < size; i++) reversed[i] = reversed[i >> 1] >> 1 | (i & 1 ? middle : 0);
  return values => {
    re.forEach((_, i) => { re[i] = values[reversed[i]]; });
    im.fill(0);
    for (let half = 1; half < size; half *= 2) {
      for (let a = 0; a < size; a = (a | half) + 1 & ~half) { // all a that lack this bit
        const b = a + half, at = a % half * middle / half, cos = cosines[at], sin = sines[at];
        const x = re[b] * cos - im[b] * sin, y = re[b] * sin + im[b] * cos;
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
    return re.subarray(0, middle).map((value, i) => Math.sqrt(value ** 2 + im[i] ** 2));
  };
}
function palette() {
  return Uint32Array.from({length: 256}, (_, level) => {
    const place = level / 256 * (MAGMA.length - 1), step = Math.floor(place);
    const [red, green, blue] = MAGMA[step].map(
      (low, i) => Math.round(low + (place - step) * (MAGMA[step + 1][i] - low)));
    return 0xff000000 | blue << 16 | green << 8 | red;
  });
}

/** Return the highest frequency that the spectrogram of a sound shows, Hz. */
function highest(rate) {
  const top = state.from === "notes" ? Math.max(...notes.map(note => note.frequency)) : Infinity;
  return Math.min(rate / 2, network.rate / 2, Math.max(2000, 4 * top));
}

/** Draw level over time and frequency, dB relative to a full-scale sine, as in audio_utils.py. */
function drawSpectrogram(canvas, values, rate) {
  const size = 2 ** Math.floor(Math.log2(clamp(0.064 * rate, 64, 8192)));
  const taper = hann(size), full = taper.reduce((a, b) => a + b) / 2, colors = palette();
  const height = clamp(Math.round(highest(rate) / rate * size), 8, size / 2);
  const pixels = new ImageData(COLUMNS, height), words = new Uint32Array(pixels.data.buffer);
  const spectrum = spectrumOf(size);
  for (let column = 0; column < COLUMNS; column++) {
    const first = Math.round(column / (COLUMNS - 1) * Math.max(0, values.length - size));
    const levels = spectrum(taper.map((weight, i) => weight * (values[first + i] ?? 0)));
    for (let row = 0; row < height; row++) {
      const db = 20 * Math.log10(levels[row] / full + 1e-9);
      const level = clamp(1 - db / data.constants.spectrumFloorDb, 0, 1);
      words[(height - 1 - row) * COLUMNS + column] = colors[Math.round(255 * level)];
    }
  }
  Object.assign(canvas, {width: COLUMNS, height}).getContext("2d").putImageData(pixels, 0, 0);
}

/** Draw the range of the samples in each pixel column, shade the gaps and frame the chosen gap. */
function drawWaveform(canvas, values, gaps, chosen, limit) {
  const {pen, width, height} = fitted(canvas), scale = height / limit / 2;
  pen.fillStyle = color("a");
  for (let column = 0; column < width; column++) {
    const first = Math.floor(column / width * values.length);
    const under = values.subarray(first, Math.ceil((column + 1) / width * values.length));
    const low = under.reduce((a, b) => Math.min(a, b));
    const high = under.reduce((a, b) => Math.max(a, b));
    pen.fillRect(column, height / 2 - scale * high, 1, Math.max(1, scale * (high - low)));
  }
  Object.assign(pen, {fillStyle: "#d6272844", strokeStyle: color("ink"), lineWidth: 2});
  for (const gap of gaps) {
    const [left, right] = gap.map(sample => sample / values.length * width);
    pen.fillRect(left, 0, Math.max(1, right - left), height);
    if (gap === chosen) pen.strokeRect(left, 1, right - left, height - 2);
  }
}
