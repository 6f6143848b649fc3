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
  const {rms, toneRms, mostRms, byChance, tiny, neighbors, leastObserved} = constants;
  for (const window of windows) {
    const {values, observed} = window, count = Math.max(1, total(observed));
    const offset = total(values) / count, centered = without(offset, values, observed);
    const gain = rms / (Math.sqrt(dot(centered, centered) / count) + tiny);
    Object.assign(window, {count, offset, gain, most: mostRms * gain});
  }
  for (let round = 0; round < 2; round++) {
    for (const window of windows) {
      const {values, observed, count, offset, most} = window;
      const centered = without(offset, values, observed), middle = (values.length - 1) / 2;
      const sign = centered.reduce((sum, value, i) => sum + value * (i - middle), 0) < 0 ? -1 : 1;
      const gain = sign * window.gain;
      const output = reconstruct(network, centered.map(value => gain * value));
      Object.assign(window, fit(constants, centered, window, output), {output});
      window.gain = Math.min(toneRms * rms / (Math.sqrt(window.energy / count) + tiny), most);
      window.rest = (total(values) - window.factor * dot(output, observed)) / count;
      window.trust = Math.max(count - leastObserved * values.length, tiny) / window.noise;
    }
    windows.forEach((window, i) => { // one window is too short to distinguish offset from noise
      const near = windows.slice(Math.max(0, i - (neighbors >> 1)), i + (neighbors >> 1) + 1);
      window.offset = dot(near.map(({rest}) => rest), near.map(({trust}) => trust)) /
        total(near.map(({trust}) => trust));
    });
  }
  return windows.map(({factor, energy, noise, offset, output}) => {
    const chance = Math.min(1, byChance * noise / Math.max(energy, tiny ** 2));
    return output.map(value => factor * (1 - chance ** 2) * value + offset);
  });
}
