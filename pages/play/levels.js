// Reconstruction of windows of any level and offset, as in signals/levels.py.
const total = values => values.reduce((sum, value) => sum + value, 0);
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const without = (offset, values, observed) => values.map(
  (value, i) => value - offset * observed[i]);

/** Fit a centered window by factor * output + offset, over its observed samples. Returns the
 * factor, the energy that it explains and the power of the residual. */
function fit({leastSeen, free, tiny}, centered, {observed, count}, output) {
  const seen = output.map((value, i) => value * observed[i]);
  const product = (a, b) => dot(a, b) - total(a) * total(b) / count;
  const both = product(centered, seen), theirs = product(seen, seen);
  const least = leastSeen * dot(output, output) * count / output.length;
  const factor = both / Math.max(theirs, least, tiny ** 2);
  const error = product(centered, centered) - factor * (2 * both - factor * theirs);
  const noise = Math.max(0, error) / Math.max(count - free, 1) + tiny ** 2;
  return {factor, energy: factor ** 2 * theirs, noise};
}

/** Reconstruct windows [{values, observed}], given in the order of restoreLong. */
function atTrainedLevel({network, constants}, windows) {
  const {rms, toneRms, byChance, tiny, neighbors, leastObserved} = constants;
  for (const window of windows) {
    const {values, observed} = window, count = Math.max(1, total(observed));
    const offset = total(values) / count, centered = without(offset, values, observed);
    Object.assign(window, {count, offset});
    window.gain = rms / (Math.sqrt(dot(centered, centered) / count) + tiny);
  }
  const fitted = sign => {
    const fits = windows.map(window => {
      const {values, observed, count, offset, gain} = window;
      const centered = without(offset, values, observed);
      const output = reconstruct(network, centered.map(value => sign * gain * value));
      const found = fit(constants, centered, window, output);
      const rest = (total(values) - found.factor * dot(output, observed)) / count;
      const trust = Math.max(count - leastObserved * values.length, 0) / found.noise;
      return {...found, output, rest, trust};
    });
    return fits.map((found, i) => { // one window is too short to distinguish offset from noise
      const near = fits.slice(Math.max(0, i - (neighbors >> 1)), i + (neighbors >> 1) + 1);
      const trust = near.map(each => each.trust), rests = near.map(each => each.rest);
      return {...found, offset: total(trust) > 0 ? dot(rests, trust) / total(trust) : found.rest};
    });
  };
  const upright = fitted(1), inverted = fitted(-1);
  windows.forEach((window, i) => {
    const sign = upright[i].energy >= inverted[i].energy ? 1 : -1;
    const {energy, offset} = sign > 0 ? upright[i] : inverted[i];
    const gain = toneRms * rms / (Math.sqrt(energy / window.count) + tiny);
    Object.assign(window, {offset, gain: sign * gain});
  });
  return fitted(1).map(({factor, energy, noise, offset, output}) => {
    const chance = Math.min(1, byChance * noise / Math.max(energy, tiny ** 2));
    return output.map(value => factor * (1 - chance ** 2) * value + offset);
  });
}
