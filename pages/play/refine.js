// Refined posteriors, completions and uncertainty of images, as in inference.py.
// A posterior is one array: the means of the latent dimensions, then their log variances.

/** Add to a model what gradients need: transposed layers, and constants of the prior. */
function differentiable({network, constants}) {
  const {decoder, prior: {logits, means, logVars}, latent} = network;
  const transposed = decoder.map(({kernel, bias, activation}) => {
    const width = bias.length, size = kernel.length / width;
    const columns = kernel.map((_, i) => kernel[i % size * width + Math.floor(i / size)]);
    return {kernel: columns, bias: new Float32Array(size), activation};
  });
  const precisions = logVars.map(value => Math.exp(-value));
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
  const offsets = logits.map((logit, c) => logVars.subarray(c * latent, (c + 1) * latent).reduce(
    (sum, value) => sum - 0.5 * (value + Math.log(2 * Math.PI)), logit - Math.log(total)));
  const greyVariance = floatsOf(bytesOf(constants.greyVariance));
  return {network, constants, transposed, means, precisions, offsets, greyVariance};
}

/** Return the gradient of the decoder's inputs, from that of its outputs (see layerOutputs). */
function backward(transposed, outputs, gradient) {
  return transposed.reduceRight((outer, layer, number) => {
    const inner = applied(layer, outer), [, derivative] = ACTIVATIONS[layer.activation];
    return number ? inner.map((value, i) => value * derivative(outputs[number - 1][i])) : inner;
  }, gradient);
}

/** Return the log density of the prior at z. Adds its gradient to `gradient`. */
function logPrior({means, precisions, offsets}, z, gradient) {
  const latent = z.length;
  const square = (value, i, at) => (value - means[at + i]) ** 2 * precisions[at + i];
  const densities = Array.from(offsets, (offset, c) => z.reduce(
    (sum, value, i) => sum - 0.5 * square(value, i, c * latent), offset));
  const highest = Math.max(...densities);
  const density = highest + Math.log(densities.reduce((sum, d) => sum + Math.exp(d - highest), 0));
  densities.forEach((each, c) => {
    const weight = Math.exp(each - density);
    z.forEach((value, i) => {
      gradient[i] += weight * (means[c * latent + i] - value) * precisions[c * latent + i];
    });
  });
  return density;
}

/** Return the ELBO of the observed pixels and its gradient, like `observed_elbo`. */
function elboAndGradient(model, {corrupted, observed}, posterior) {
  const {network: {decoder, latent}, transposed, constants: {elboNoise}} = model;
  const size = corrupted.length, draws = elboNoise.length / latent;
  const std = posterior.subarray(latent).map(value => Math.exp(value / 2));
  const z = Float32Array.from(
    elboNoise, (noise, i) => posterior[i % latent] + std[i % latent] * noise);
  const outputs = layerOutputs(decoder, z), logits = outputs.at(-1);
  let elbo = 0;
  const slopes = logits.map((logit, i) => {
    const x = corrupted[i % size], seen = observed[i % size];
    elbo += seen * (x * logit - Math.max(logit, 0) - Math.log1p(Math.exp(-Math.abs(logit))));
    return seen * (x - sigmoid(logit));
  });
  const zGradient = backward(transposed, outputs, slopes), gradient = new Float64Array(2 * latent);
  for (let start = 0; start < z.length; start += latent) {
    const ends = [start, start + latent];
    elbo += logPrior(model, z.subarray(...ends), zGradient.subarray(...ends));
  }
  zGradient.forEach((slope, i) => {
    gradient[i % latent] += slope / draws;
    gradient[latent + i % latent] += slope * std[i % latent] * elboNoise[i] / 2 / draws;
  });
  const entropy = posterior.subarray(latent).reduce(
    (sum, value) => sum + 0.5 * (value + 1 + Math.log(2 * Math.PI)), 0);
  return {elbo: elbo / draws + entropy, gradient: gradient.map((g, i) => i < latent ? g : g + 0.5)};
}

/** Return the best posterior of a gradient ascent by Adam, and its ELBO, like `refiner`. */
function refine(model, example, start) {
  const {refining: [steps, rate, weight], momentDecays} = model.constants;
  const {corrupted} = example, observed = example.observed.map(seen => weight * seen);
  const posterior = Float64Array.from(start);
  const moments = momentDecays.map(() => new Float64Array(posterior.length));
  let best = {elbo: -Infinity};
  for (let step = 1; step <= steps + 1; step++) {
    const {elbo, gradient} = elboAndGradient(model, {corrupted, observed}, posterior);
    if (elbo > best.elbo) best = {elbo, posterior: posterior.slice()};
    gradient.forEach((slope, i) => {
      const [first, second] = moments.map((moment, order) => {
        const decay = momentDecays[order];
        moment[i] = decay * moment[i] + (1 - decay) * slope ** (order + 1);
        return moment[i] / (1 - decay ** step); // unbiased
      });
      posterior[i] += rate * first / (Math.sqrt(second) + 1e-8);
    });
  }
  return best;
}

/** Decode a sample of a posterior. */
function drawFrom({network}, posterior, {normal}) {
  const {latent} = network, means = posterior.subarray(0, latent);
  return decode(network, Float32Array.from(
    means, (mean, i) => mean + Math.exp(posterior[latent + i] / 2) * normal()));
}

/** Return a sample of a mixture of refined posteriors, weighted by exp(ELBO). */
function completion(model, mixture, random) {
  const highest = Math.max(...mixture.map(({elbo}) => elbo));
  const weights = mixture.map(({elbo}) => Math.exp(elbo - highest));
  return drawFrom(model, mixture[chosen(weights, random)].posterior, random);
}

/** Return the predictive standard deviation of each pixel, like `predictive_std`. */
function predictiveStd(model, {observed}, posterior, random) {
  const {constants: {predictiveDraws: draws}, greyVariance} = model;
  const sum = new Float64Array(observed.length), squares = sum.slice();
  for (let draw = 0; draw < draws; draw++) {
    drawFrom(model, posterior, random).forEach((p, i) => {
      sum[i] += p / draws;
      squares[i] += p * p / draws;
    });
  }
  const inHoles = values => values.reduce((all, value, i) => all + (1 - observed[i]) * value, 0);
  const bernoulli = sum.map((mean, i) => mean - squares[i]);
  const known = Math.max(0, 1 - inHoles(greyVariance) / Math.max(1e-9, inHoles(bernoulli)));
  const between = sum.map((mean, i) => Math.max(0, squares[i] - mean * mean));
  return between.map((variance, i) => Math.sqrt(variance + bernoulli[i] * known));
}

/** Return the worker's task: refine an image's posterior, then complete its hole. */
function prepare(received) {
  const model = differentiable(received), {network, constants} = model, {latent} = network;
  return (example, send) => {
    const random = randomBy(1), start = forward(network.encoder, example.corrupted);
    const mixture = [refine(model, example, start)], {posterior} = mixture[0];
    const refined = decode(network, Float32Array.from(posterior.subarray(0, latent)));
    send({refined, uncertainty: predictiveStd(model, example, posterior, random)});
    while (mixture.length < constants.completions) {
      const other = [...samplePrior(network, random), ...start.subarray(latent)];
      mixture.push(refine(model, example, other));
    }
    send({completions: mixture.map(() => completion(model, mixture, random)), done: true});
  };
}
