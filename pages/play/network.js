"use strict";
// The network, used by the page and its worker. A batch of flat examples is one Float32Array.
function bytesOf(base64) {
  const text = atob(base64);
  return new Uint8Array(text.length).map((_, i) => text.charCodeAt(i));
}

/** Convert little-endian half precision to single. Shifting the bits of a half into the fields of a
 * single gives 2 ** -112 times its value, because the exponent biases are 15 and 127. */
function floatsOf(bytes) {
  const bits = new Uint32Array(new Uint16Array(bytes.buffer)).map(
    half => (half & 0x8000) << 16 | (half & 0x7fff) << 13);
  return new Float32Array(bits.buffer).map(value => value * 2 ** 112);
}

const sigmoid = x => 1 / (1 + Math.exp(-x));
const ACTIVATIONS = { // of hidden layers: the function and its derivative
  relu: [x => Math.max(x, 0), x => Number(x > 0)],
  silu: [x => x * sigmoid(x), x => sigmoid(x) * (1 + x * sigmoid(-x))],
};

/** Split the array of weights into layers and prior, in the order of play.py. */
function readNetwork({weights, sizes, components, activation, likelihood, rate}) {
  const numbers = floatsOf(bytesOf(weights)), latent = sizes.decoder[0], size = components * latent;
  let at = 0;
  const take = count => numbers.subarray(at, at += count);
  const layers = widths => widths.slice(1).map(
    (width, i) => ({kernel: take(widths[i] * width), bias: take(width), activation}));
  const encoder = layers(sizes.encoder), decoder = layers(sizes.decoder);
  const prior = {logits: take(components), means: take(size), logVars: take(size)};
  return {encoder, decoder, prior, latent, window: sizes.encoder[0], likelihood, rate};
}

/** Return seeded generators: uniform in [0, 1) (mulberry32) and standard normal (Box-Muller). */
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

/** Add the products of x and u with a kernel to y and v. Skipping zeros (black pixels, gaps, ReLU),
 * and using four kernel rows for two examples at a time, takes a quarter of plain loops' time. */
function addProducts([y, v], [x, u], kernel) {
  const width = y.length, active = [];
  for (let i = 0; i < x.length; i++) if (x[i] !== 0 || u[i] !== 0) active.push(i);
  const fours = active.length & ~3;
  for (let n = 0; n < fours; n += 4) {
    const a = active[n], b = active[n + 1], c = active[n + 2], d = active[n + 3];
    const xa = x[a], xb = x[b], xc = x[c], xd = x[d], ua = u[a], ub = u[b], uc = u[c], ud = u[d];
    const ka = a * width, kb = b * width, kc = c * width, kd = d * width;
    for (let j = 0; j < width; j++) {
      const p = kernel[ka + j], q = kernel[kb + j], r = kernel[kc + j], s = kernel[kd + j];
      y[j] += xa * p + xb * q + xc * r + xd * s;
      v[j] += ua * p + ub * q + uc * r + ud * s;
    }
  }
  for (const a of active.slice(fours)) {
    for (let j = 0; j < width; j++) {
      y[j] += x[a] * kernel[a * width + j];
      v[j] += u[a] * kernel[a * width + j];
    }
  }
}
function applied({kernel, bias}, inputs) {
  const width = bias.length, size = kernel.length / width, rows = inputs.length / size;
  const outputs = new Float32Array((rows + 1) * width).map((_, i) => bias[i % width]);
  for (let row = 0; row < rows; row += 2) { // the last example of an odd number is computed twice
    const y = [row, row + 1].map(n => outputs.subarray(n * width, (n + 1) * width));
    const pair = [row, Math.min(row + 1, rows - 1)];
    addProducts(y, pair.map(n => inputs.subarray(n * size, (n + 1) * size)), kernel);
  }
  return outputs.subarray(0, rows * width);
}

/** Return each layer's outputs before its activation. The network's outputs have none. */
function layerOutputs(layers, inputs) {
  return layers.reduce((all, layer) => {
    const [activate] = ACTIVATIONS[layer.activation];
    return [...all, applied(layer, all.length ? all.at(-1).map(activate) : inputs)];
  }, []);
}
const forward = (layers, inputs) => layerOutputs(layers, inputs).at(-1);

/** Return the posterior means of a batch. The encoder outputs means, then log variances. */
function encode({encoder, latent}, inputs) {
  return forward(encoder, inputs).filter((_, i) => i % (2 * latent) < latent);
}
function decode({decoder, likelihood}, z) {
  const outputs = forward(decoder, z);
  return likelihood === "bernoulli" ? outputs.map(sigmoid) : outputs;
}
const reconstruct = (network, inputs) => decode(network, encode(network, inputs));

/** Return a random index, with probabilities proportional to the weights. */
function chosen(weights, {uniform}) {
  let left = uniform() * weights.reduce((a, b) => a + b), index = 0;
  while (index < weights.length - 1 && left > weights[index]) left -= weights[index++];
  return index;
}
function samplePrior({prior: {logits, means, logVars}, latent}, random) {
  const highest = Math.max(...logits), weights = logits.map(logit => Math.exp(logit - highest));
  const start = chosen(weights, random) * latent;
  return means.slice(start, start + latent).map(
    (mean, i) => mean + Math.exp(logVars[start + i] / 2) * random.normal());
}

/** Run the worker: its first message is the model, and each later one is a job for `prepare`. */
function serve() {
  onmessage = ({data: model}) => {
    const work = prepare(model);
    onmessage = ({data: job}) => work(job, postMessage);
  };
}
