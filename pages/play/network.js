"use strict";
// The network, for the page and its worker. A batch of flat examples is one Float32Array.
function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Convert little-endian half precision to floats. A half's bits, moved to a float's places, give
 * 2 ** -112 times its value, as the biases of the exponents are 15 and 127. */
function floatsOf(bytes) {
  const bits = new Uint32Array(bytes.length / 2).map((_, i) => {
    const half = bytes[2 * i] | bytes[2 * i + 1] << 8;
    return (half & 0x8000) << 16 | (half & 0x7fff) << 13;
  });
  return new Float32Array(bits.buffer).map(value => value * 2 ** 112);
}

/** Seeded random numbers: uniform in [0, 1) (mulberry32) and standard normal (Box-Muller). */
function randomBy(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const radius = () => Math.sqrt(-2 * Math.log(1 - uniform()));
  return {uniform, normal: () => radius() * Math.cos(2 * Math.PI * uniform())};
}

/** Add x times a kernel to y. Skipping inputs of 0 (black pixels, gaps, ReLU) and taking four of
 * the others at a time is three times as fast as plain loops. */
function addProduct(y, x, kernel) {
  const width = y.length, active = [];
  for (let i = 0; i < x.length; i++) if (x[i] !== 0) active.push(i);
  const fours = active.length & ~3;
  for (let n = 0; n < fours; n += 4) {
    const a = active[n], b = active[n + 1], c = active[n + 2], d = active[n + 3];
    const xa = x[a], xb = x[b], xc = x[c], xd = x[d];
    const ka = a * width, kb = b * width, kc = c * width, kd = d * width;
    for (let j = 0; j < width; j++) {
      y[j] += xa * kernel[ka + j] + xb * kernel[kb + j] + xc * kernel[kc + j] + xd * kernel[kd + j];
    }
  }
  for (const a of active.slice(fours)) {
    for (let j = 0; j < width; j++) y[j] += x[a] * kernel[a * width + j];
  }
}
function forward(layers, inputs) {
  layers.forEach(({kernel, bias}, number) => {
    const width = bias.length, size = kernel.length / width, rows = inputs.length / size;
    const outputs = new Float32Array(rows * width);
    for (let row = 0; row < rows; row++) {
      const y = outputs.subarray(row * width, (row + 1) * width);
      y.set(bias);
      addProduct(y, inputs.subarray(row * size, (row + 1) * size), kernel);
    }
    inputs = number < layers.length - 1 ? outputs.map(value => Math.max(value, 0)) : outputs;
  });
  return inputs;
}

/** Posterior means of a batch. The encoder also gives the log variances, after each mean. */
function encode({encoder, latent}, inputs) {
  return forward(encoder, inputs).filter((_, i) => i % (2 * latent) < latent);
}
function decode({decoder, likelihood}, z) {
  const outputs = forward(decoder, z);
  return likelihood === "bernoulli" ? outputs.map(logit => 1 / (1 + Math.exp(-logit))) : outputs;
}
const reconstruct = (network, inputs) => decode(network, encode(network, inputs));
function samplePrior({prior: {logits, means, logVars}, latent}, {uniform, normal}) {
  const highest = Math.max(...logits), weights = logits.map(logit => Math.exp(logit - highest));
  let left = uniform() * weights.reduce((a, b) => a + b), component = 0;
  while (component < weights.length - 1 && left > weights[component]) {
    left -= weights[component];
    component++;
  }
  const start = component * latent;
  return means.slice(start, start + latent).map(
    (mean, i) => mean + Math.exp(logVars[start + i] / 2) * normal());
}
