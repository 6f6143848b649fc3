// Waveforms and spectrograms.

const MAGMA = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
const COLUMNS = 300; // of a spectrogram

/** Magnitudes (size / 2) of the spectrum of real values; size: a power of two (Stockham's FFT). */
function spectrum(values) {
  const size = values.length;
  let re = values, im = new Float64Array(size);
  for (let half = size >> 1, stride = 1; half >= 1; half >>= 1, stride *= 2) {
    const nextRe = new Float64Array(size), nextIm = new Float64Array(size);
    for (let at = 0; at < size / 2; at++) {
      const angle = -Math.PI * Math.floor(at / stride) / half, other = at + size / 2;
      const cos = Math.cos(angle), sin = Math.sin(angle), to = 2 * at - at % stride;
      const x = re[at] - re[other], y = im[at] - im[other];
      nextRe[to] = re[at] + re[other];
      nextIm[to] = im[at] + im[other];
      nextRe[to + stride] = x * cos - y * sin;
      nextIm[to + stride] = x * sin + y * cos;
    }
    re = nextRe;
    im = nextIm;
  }
  return re.subarray(0, size / 2).map((value, i) => Math.hypot(value, im[i]));
}

/** 256 pixels, from low to high level. */
function palette() {
  return Uint32Array.from({length: 256}, (_, level) => {
    const place = level / 255 * (MAGMA.length - 1), step = Math.min(Math.floor(place), MAGMA.length - 2);
    const mixed = MAGMA[step].map((low, i) => low + (place - step) * (MAGMA[step + 1][i] - low));
    const [red, green, blue] = mixed.map(Math.round);
    return 0xff000000 | blue << 16 | green << 8 | red;
  });
}

/** Highest frequency of the spectrograms, Hz. */
function highest() {
  if (state.from !== "notes") return network.rate / 2;
  const top = Math.max(...notes.map(({frequency}) => frequency));
  return Math.min(network.rate / 2, Math.max(2000, 4 * top));
}

/** Level over time and frequency, dB relative to a full-scale sine, as in audio_utils.py. */
function drawSpectrogram(canvas, {rate, channels: [values]}) {
  const size = 2 ** Math.floor(Math.log2(clamp(0.064 * rate, 64, 8192)));
  const taper = hann(size), full = taper.reduce((a, b) => a + b) / 2, colors = palette();
  const rows = clamp(Math.round(highest() / rate * size), 8, size / 2);
  const pixels = new ImageData(COLUMNS, rows), words = new Uint32Array(pixels.data.buffer);
  for (let column = 0; column < COLUMNS; column++) {
    const first = Math.round(column / (COLUMNS - 1) * Math.max(0, values.length - size));
    const levels = spectrum(taper.map((weight, i) => weight * (values[first + i] ?? 0)));
    for (let row = 0; row < rows; row++) {
      const db = 20 * Math.log10(levels[row] / full + 1e-9);
      const level = clamp(1 - db / data.constants.spectrumFloorDb, 0, 1);
      words[(rows - 1 - row) * COLUMNS + column] = colors[Math.round(255 * level)];
    }
  }
  canvas.width = COLUMNS;
  canvas.height = rows;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** Draw the lowest and highest sample under each pixel, and shade the gaps. */
function drawWaveform(canvas, {channels: [values]}, gaps, chosen, limit) {
  const {pen, width, height} = fitted(canvas), pixel = sample => sample / values.length * width;
  const scale = height / limit / 2;
  pen.fillStyle = color("a");
  for (let column = 0; column < width; column++) {
    const first = Math.floor(column / width * values.length);
    const under = values.subarray(first, Math.ceil((column + 1) / width * values.length));
    const low = under.reduce((a, b) => Math.min(a, b)), high = under.reduce((a, b) => Math.max(a, b));
    pen.fillRect(column, height / 2 - scale * high, 1, Math.max(1, scale * (high - low)));
  }
  pen.fillStyle = "#d6272844";
  for (const [start, end] of gaps) {
    pen.fillRect(pixel(start), 0, Math.max(1, pixel(end) - pixel(start)), height);
  }
  if (!chosen) return;
  pen.strokeStyle = color("ink");
  pen.lineWidth = 2;
  pen.strokeRect(pixel(chosen[0]), 1, pixel(chosen[1]) - pixel(chosen[0]), height - 2);
}
