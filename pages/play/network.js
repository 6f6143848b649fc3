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

/** Split the array of weights into layers and prior, in the order of play.py. */
function readNetwork({weights, sizes, components, likelihood, rate}) {
  const numbers = floatsOf(bytesOf(weights)), latent = sizes.decoder[0], size = components * latent;
  let at = 0;
  const take = count => numbers.subarray(at, at += count);
  const layers = widths => widths.slice(1).map(
    (width, i) => ({kernel: take(widths[i] * width), bias: take(width)}));
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

/** Add the product of x and a kernel to y. Skipping zeros in x (black pixels, gaps, ReLU) and
 * adding four kernel rows at a time makes this three times as fast as plain loops. */
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
function applied({kernel, bias}, inputs) {
  const width = bias.length, size = kernel.length / width, rows = inputs.length / size;
  const outputs = new Float32Array(rows * width);
  for (let row = 0; row < rows; row++) {
    const y = outputs.subarray(row * width, (row + 1) * width);
    y.set(bias);
    addProduct(y, inputs.subarray(row * size, (row + 1) * size), kernel);
  }
  return outputs;
}

/** Return the inputs of each layer, and last the outputs of the network. */
function activations(layers, inputs) {
  const all = [inputs];
  layers.forEach((layer, number) => {
    const outputs = applied(layer, all[number]), last = number === layers.length - 1;
    all.push(last ? outputs : outputs.map(value => Math.max(value, 0)));
  });
  return all;
}
const forward = (layers, inputs) => activations(layers, inputs).at(-1);

/** Return the posterior means of a batch. The encoder outputs means, then log variances. */
function encode({encoder, latent}, inputs) {
  return forward(encoder, inputs).filter((_, i) => i % (2 * latent) < latent);
}
const sigmoid = logit => 1 / (1 + Math.exp(-logit));
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
