// Restoring sounds longer than a window, in the worker.
/** Return the sum of the `width` samples around each sample, with zeros beyond the ends. */
function neighborhoodSums(values, width) {
  const half = width >> 1, cumulative = new Float64Array(values.length + 1);
  values.forEach((value, i) => { cumulative[i + 1] = cumulative[i] + value; });
  return cumulative.subarray(1).map((_, i) => {
    const end = Math.min(i + width - half, values.length);
    return cumulative[end] - cumulative[Math.max(0, i - half)];
  });
}

/** Return the confidence weights of a window's samples, as in inference.py: (the window's mean
 * squared error times the local one) ** -4. Both errors are over observed samples. */
function confidence({leastObserved, errorRange}, input, observed, output) {
  const size = input.length, width = size >> 3, count = observed.reduce((a, b) => a + b);
  const error = output.map((value, i) => observed[i] * (input[i] - value) ** 2);
  const mean = error.reduce((a, b) => a + b) / count, [least, most] = errorRange;
  const whole = count < leastObserved * size ? most : Math.min(Math.max(mean, least), most);
  const counts = neighborhoodSums(observed, width);
  return neighborhoodSums(error, width).map(
    (near, i) => (whole * (near + whole) / (counts[i] + 1)) ** -4);
}

/** Restore a long sound by weighted overlap-add, like `restore_long` in inference.py. */
function restoreLong(model, sound, observed) {
  const {window} = model.network, {hopsPerWindow, windowsPerBlock} = model.constants;
  const last = sound.length - window, hop = Math.max(1, Math.floor(window / hopsPerWindow));
  const taper = hann(window), starts = [];
  const sums = new Float64Array(sound.length), weights = new Float64Array(sound.length);
  for (let start = 0; start < last; start += hop) starts.push(start);
  starts.push(last);
  for (let first = 0; first < starts.length; first += windowsPerBlock) {
    const windows = starts.slice(first, first + windowsPerBlock).map(start => {
      const [values, seen] = [sound, observed].map(all => all.subarray(start, start + window));
      return {start, values, observed: seen};
    });
    atTrainedLevel(model, windows).forEach((output, n) => {
      const {start, values, observed: seen} = windows[n];
      confidence(model.constants, values, seen, output).forEach((weight, i) => {
        sums[start + i] += taper[i] * weight * output[i];
        weights[start + i] += taper[i] * weight;
      });
    });
  }
  return Float32Array.from(sums, (sum, i) => sum / weights[i]);
}

/** Restore a channel of any sample rate and length. gaps: [[start, end], ...] in its samples. */
function restoreChannel(model, values, gaps, rate) {
  const {network} = model, ratio = network.rate / rate, frames = values.length;
  const length = ratio === 1 ? frames : Math.ceil(frames * ratio) + 1;
  const sound = new Float32Array(Math.max(network.window, length)), observed = sound.map(() => 1);
  sound.set(resample(silenced(values, gaps), rate, network.rate, length));
  for (const [start, end] of [...gaps, [frames, Infinity]]) {
    observed.fill(0, Math.floor(start * ratio), Math.ceil(end * ratio));
  }
  const corrupted = sound.map((value, i) => observed[i] * value);
  return resample(restoreLong(model, corrupted, observed), network.rate, rate, frames);
}

/** Return the worker's task: restore the channels of a sound. */
const prepare = model => ({channels, gaps, rate}, send) => send({
  restored: channels.map((values, i) => restoreChannel(model, values, gaps[i], rate)), done: true,
});
