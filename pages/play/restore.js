// Restoring sounds longer than a window, in the worker.
const WINDOWS_AT_ONCE = 32; // per batch: about 10% faster than single windows

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
function confidence({leastObserved, unknownError, errorRange}, input, observed, output) {
  const size = input.length, width = size >> 3, count = observed.reduce((a, b) => a + b);
  const error = output.map((value, i) => observed[i] * (input[i] - value) ** 2);
  const whole = count < leastObserved * size ? unknownError : error.reduce((a, b) => a + b) / count;
  const counts = neighborhoodSums(observed, width);
  return neighborhoodSums(error, width).map((near, i) => {
    const product = whole * (near + whole) / (counts[i] + 1);
    return Math.min(Math.max(product, errorRange[0]), errorRange[1]) ** -4;
  });
}

/** Restore a long sound by weighted overlap-add, like `restore_long` in inference.py. */
function restoreLong({network, constants}, sound, observed, report) {
  const {window} = network, last = sound.length - window, taper = hann(window), starts = [];
  const total = new Float64Array(sound.length), weights = new Float64Array(sound.length);
  const hop = Math.max(1, Math.floor(window / constants.hopsPerWindow));
  for (let start = 0; start < last; start += hop) starts.push(start);
  starts.push(last);
  for (let first = 0; first < starts.length; first += WINDOWS_AT_ONCE) {
    const batch = starts.slice(first, first + WINDOWS_AT_ONCE);
    const inputs = new Float32Array(batch.length * window);
    batch.forEach((start, row) => inputs.set(sound.subarray(start, start + window), row * window));
    const outputs = reconstruct(network, inputs);
    batch.forEach((start, row) => {
      const ends = [row * window, (row + 1) * window], output = outputs.subarray(...ends);
      const mask = observed.subarray(start, start + window);
      confidence(constants, inputs.subarray(...ends), mask, output).forEach((weight, i) => {
        total[start + i] += taper[i] * weight * output[i];
        weights[start + i] += taper[i] * weight;
      });
    });
    report((first + batch.length) / starts.length);
  }
  return Float32Array.from(total, (sum, i) => sum / weights[i]);
}

/** Restore a channel of any sample rate, level and length. gaps: [[start, end], ...] in samples at
 * `rate`. rms: the level of the training data, or null if the channel already has it. */
function restoreChannel(model, values, gaps, rate, rms, report) {
  const {network} = model, ratio = network.rate / rate, frames = values.length;
  const length = ratio === 1 ? frames : Math.ceil(frames * ratio) + 1;
  const sound = new Float32Array(Math.max(network.window, length)), observed = sound.map(() => 1);
  sound.set(resample(silenced(values, gaps), rate, network.rate, length));
  for (const [start, end] of [...gaps, [frames, Infinity]]) {
    observed.fill(0, Math.floor(start * ratio), Math.ceil(end * ratio));
  }
  const corrupted = sound.map((value, i) => observed[i] * value);
  const energy = corrupted.reduce((sum, value) => sum + value * value, 0);
  const count = observed.reduce((a, b) => a + b);
  const gain = rms !== null && energy ? rms / Math.sqrt(energy / count) : 1;
  const restored = restoreLong(model, corrupted.map(value => gain * value), observed, report);
  return resample(restored.map(value => value / gain), network.rate, rate, frames);
}

/** Run the worker. Its first message is the model. Every later message is a sound to restore. */
function serve() {
  const restore = (model, {channels, gaps, rate, rms}) => {
    const restored = channels.map((values, channel) => {
      const report = part => postMessage({fraction: (channel + part) / channels.length});
      return restoreChannel(model, values, gaps[channel], rate, rms, report);
    });
    postMessage({fraction: 1, restored});
  };
  onmessage = ({data: model}) => { onmessage = ({data}) => restore(model, data); };
}
