"use strict";
// The network, and what it does to sounds longer than a window: functions without state, which the page and its worker
// share. Examples are flat, several of them lie one after the other in one Float32Array.

const MISTRUST = 4, LEAST_OBSERVED = 1 / 8, NOT_EXPLAINED = 1e3, EXPLAINED = [1e-8, 1e8]; // as in inference.py
const HOPS_A_WINDOW = 8, WINDOWS_AT_ONCE = 32;
const CROSSINGS = 24, STEPS = 256, ROLL_OFF = 0.95; // of the resampling filter: half its width; its table; its passband

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** What a number of half precision is worth. */
function halfOf(word) {
  const exponent = (word >> 10) & 31, fraction = word & 1023;
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return word & 0x8000 ? -size : size;
}

/** Numbers of half precision, little-endian, as floats: by a table, as there are millions. */
function floatsOf(bytes) {
  const worth = Float32Array.from({length: 65536}, (_, word) => halfOf(word));
  const floats = new Float32Array(bytes.length / 2);
  for (let i = 0; i < floats.length; i++) floats[i] = worth[bytes[2 * i] | bytes[2 * i + 1] << 8];
  return floats;
}

/** Random numbers from 0 to 1 that a seed repeats (mulberry32), and standard normal ones (Box and Muller). */
function randomBy(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return {uniform, normal};
}

/** y += x times a kernel, in which the weights of one input lie side by side. What is 0 costs nothing: black pixels, a
 * gap, half of what ReLU leaves. Four inputs at once spare three of four visits to y. */
function addProduct(y, x, kernel) {
  const width = y.length, active = [];
  for (let i = 0; i < x.length; i++) if (x[i] !== 0) active.push(i);
  let n = 0;
  for (; n + 4 <= active.length; n += 4) {
    const [a, b, c, d] = [active[n], active[n + 1], active[n + 2], active[n + 3]];
    const xa = x[a], xb = x[b], xc = x[c], xd = x[d];
    const ka = a * width, kb = b * width, kc = c * width, kd = d * width;
    for (let j = 0; j < width; j++) {
      y[j] += xa * kernel[ka + j] + xb * kernel[kb + j] + xc * kernel[kc + j] + xd * kernel[kd + j];
    }
  }
  for (; n < active.length; n++) {
    const xa = x[active[n]], ka = active[n] * width;
    for (let j = 0; j < width; j++) y[j] += xa * kernel[ka + j];
  }
}

/** Fully connected layers with ReLU between them, for one example or more. */
function forward(layers, inputs) {
  layers.forEach(({kernel, bias}, number) => {
    const size = kernel.length / bias.length, rows = inputs.length / size;
    const outputs = new Float32Array(rows * bias.length);
    for (let row = 0; row < rows; row++) {
      const y = outputs.subarray(row * bias.length, (row + 1) * bias.length);
      y.set(bias);
      addProduct(y, inputs.subarray(row * size, (row + 1) * size), kernel);
      if (number < layers.length - 1) for (let j = 0; j < y.length; j++) if (y[j] < 0) y[j] = 0;
    }
    inputs = outputs;
  });
  return inputs;
}

/** The posterior means; the log variances, which lie behind them, are not needed here. */
function encode(network, inputs) {
  const both = forward(network.encoder, inputs), {latent} = network, means = new Float32Array(both.length / 2);
  for (let row = 0; row * latent < means.length; row++) {
    means.set(both.subarray(2 * row * latent, (2 * row + 1) * latent), row * latent);
  }
  return means;
}

function decode(network, z) {
  const decoded = forward(network.decoder, z);
  return network.likelihood === "bernoulli" ? decoded.map(logit => 1 / (1 + Math.exp(-logit))) : decoded;
}

const reconstruct = (network, inputs) => decode(network, encode(network, inputs));

/** A draw of z from the prior, a mixture of Gaussians. */
function samplePrior({prior, latent}, {uniform, normal}) {
  const most = Math.max(...prior.logits), weights = prior.logits.map(logit => Math.exp(logit - most));
  let left = uniform() * weights.reduce((a, b) => a + b, 0), which = 0;
  while (which < weights.length - 1 && (left -= weights[which]) > 0) which++;
  return Float32Array.from({length: latent}, (_, i) => {
    const at = which * latent + i;
    return prior.means[at] + Math.exp(prior.logVars[at] / 2) * normal();
  });
}

/** Rises and falls as half a cosine each, above 0 at both ends. */
function hann(size) {
  return Float64Array.from({length: size}, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * (i + 1) / (size + 1)));
}

/** Sums over each place's neighbourhood of `width`, zeros beyond the ends. */
function neighbourhoodSums(values, width) {
  const sums = new Float64Array(values.length), half = width >> 1;
  let sum = 0;
  for (let i = -half; i < values.length; i++) {
    const comes = i + width - half - 1, goes = i - half - 1;
    if (comes >= 0 && comes < values.length) sum += values[comes];
    if (goes >= 0) sum -= values[goes];
    if (i >= 0) sums[i] = sum;
  }
  return sums;
}

/** How far to trust each sample of a window's output, as `_confidence` of inference.py: by its residual where observed, of
 * the whole window and of the neighbourhood. */
function trustOf(input, observed, output) {
  const size = input.length, width = size >> 3, error = new Float64Array(size);
  let sum = 0, count = 0;
  for (let i = 0; i < size; i++) {
    error[i] = observed[i] * (input[i] - output[i]) ** 2;
    sum += error[i];
    count += observed[i];
  }
  const whole = count >= LEAST_OBSERVED * size ? sum / Math.max(count, 1) : NOT_EXPLAINED;
  const near = neighbourhoodSums(error, width), counts = neighbourhoodSums(observed, width);
  return near.map((each, i) => {
    const local = (each + whole) / (counts[i] + 1);
    return Math.min(Math.max(whole * local, EXPLAINED[0]), EXPLAINED[1]) ** -MISTRUST;
  });
}

/** A long sound from overlapping windows, each trusted as far as it explains what is observed, as `restore` of
 * inference.py. tell(share) is called as it goes on. */
function restore(network, sound, observed, tell = () => {}) {
  const window = network.window, hop = Math.max(1, Math.floor(window / HOPS_A_WINDOW)), last = sound.length - window;
  const taper = hann(window), total = new Float64Array(sound.length), weight = new Float64Array(sound.length);
  const starts = [];
  for (let start = 0; start < last; start += hop) starts.push(start);
  starts.push(last);
  for (let first = 0; first < starts.length; first += WINDOWS_AT_ONCE) {
    const some = starts.slice(first, first + WINDOWS_AT_ONCE), inputs = new Float32Array(some.length * window);
    some.forEach((start, row) => inputs.set(sound.subarray(start, start + window), row * window));
    const outputs = reconstruct(network, inputs);
    some.forEach((start, row) => {
      const part = [row * window, (row + 1) * window], output = outputs.subarray(...part);
      const trust = trustOf(inputs.subarray(...part), observed.subarray(start, start + window), output);
      for (let i = 0; i < window; i++) {
        total[start + i] += taper[i] * trust[i] * output[i];
        weight[start + i] += taper[i] * trust[i];
      }
    });
    tell((first + some.length) / starts.length);
  }
  return Float32Array.from(total, (each, i) => each / weight[i]);
}

/** A windowed sinc at `STEPS` places between two zero crossings. */
function filterTable() {
  return Float64Array.from({length: CROSSINGS * STEPS + 2}, (_, i) => {
    const t = i / STEPS, angle = Math.PI * t;
    return t >= CROSSINGS ? 0 : (t ? Math.sin(angle) / angle : 1) * Math.cos(angle / CROSSINGS / 2) ** 2;
  });
}

/** A sound at another rate, `length` samples of it. */
function resample(sound, from, to, length) {
  const table = filterTable(), cut = ROLL_OFF * Math.min(1, to / from), reach = CROSSINGS / cut;
  const result = new Float32Array(length);
  for (let n = 0; n < length; n++) {
    const centre = n * from / to, end = Math.min(Math.floor(centre + reach), sound.length - 1);
    let sum = 0;
    for (let k = Math.max(0, Math.ceil(centre - reach)); k <= end; k++) {
      const place = Math.abs(k - centre) * cut * STEPS, step = Math.floor(place);
      sum += sound[k] * (table[step] + (place - step) * (table[step + 1] - table[step]));
    }
    result[n] = cut * sum;
  }
  return result;
}

/** What brings a sound to the level that the network was trained at, by what is observed of it; 1 for silence. */
function gainTo(rms, sound, observed) {
  let energy = 0, count = 0;
  sound.forEach((value, i) => { energy += observed[i] * value * value; count += observed[i]; });
  return energy ? rms / Math.sqrt(energy / count) : 1;
}

/** A channel of any rate, level and length restored. gaps: [start, end] in its samples. rms: the level to bring it to
 * meanwhile; null for a sound that has the network's level already. */
function restoreChannel(network, values, gaps, rate, rms, tell) {
  const ratio = network.rate / rate, same = ratio === 1, frames = values.length;
  const chopped = values.slice();
  gaps.forEach(([start, end]) => chopped.fill(0, start, end));
  const length = Math.max(network.window, same ? frames : Math.ceil(frames * ratio) + 1);
  const sound = new Float32Array(length), observed = new Float32Array(length).fill(1);
  sound.set(same ? chopped : resample(chopped, rate, network.rate, length));
  for (const [start, end] of [...gaps, [frames, Infinity]]) {
    const hidden = [Math.floor(start * ratio), Math.min(Math.ceil(end * ratio), length)];
    observed.fill(0, ...hidden);
    sound.fill(0, ...hidden);
  }
  const gain = rms === null ? 1 : gainTo(rms, sound, observed);
  const restored = restore(network, sound.map(value => gain * value), observed, tell).map(value => value / gain);
  return same ? restored.subarray(0, frames) : resample(restored, network.rate, rate, frames);
}

/** What the worker does: a message with the network first, then one for each sound. */
function serve() {
  let network;
  onmessage = ({data}) => {
    if (data.network) return void (network = data.network);
    const {number, channels, gaps, rate, rms} = data;
    const restored = channels.map((values, channel) => {
      const tell = share => postMessage({number, share: (channel + share) / channels.length});
      return restoreChannel(network, values, gaps[channel], rate, rms, tell);
    });
    postMessage({number, restored});
  };
}
