// Gaps in sounds, as [start, end] in samples: found in a file, or cut by the user.
const LEAST_GAP = 8; // shortest gap that a user can cut, samples

/** Return the jump from silence to a sound, its median magnitude and its quantization step. */
function besideSilence(sound) {
  const magnitudes = sound.map(Math.abs), heard = magnitudes.filter(Boolean);
  const changes = sound.subarray(1).map((value, i) => Math.abs(value - sound[i])).filter(Boolean);
  const step = [...heard, ...changes].reduce((a, b) => Math.min(a, b), Infinity);
  return {jump: magnitudes[0] ?? 0, level: heard.length ? median(heard) : 0, step};
}

/** Find runs of exact zeros in a channel, like `find_gaps` in signals/gaps.py. Returns {gaps,
 * silences}. Runs longer than a window or at either end of the file are silences. Other runs are
 * gaps if the sound jumps at their start or end. */
function findGaps(values, rate) {
  const {gapSeconds, gapJump, gapSteps} = data.constants, found = {gaps: [], silences: []};
  const longest = network.window / network.rate * rate, reach = Math.round(longest);
  for (let start = 0, end = 0; end <= values.length; end++) {
    if (values[end] === 0) continue;
    if (end - start >= gapSeconds * rate || end > start && end === values.length) {
      const before = values.slice(Math.max(0, start - reach), start).reverse();
      const sides = [before, values.subarray(end, end + reach)].map(besideSilence);
      const [jumps, levels, steps] = ["jump", "level", "step"].map(key => sides.map(s => s[key]));
      const least = Math.max(gapJump * Math.max(...levels), gapSteps * Math.min(...steps));
      const silent = start === 0 || end === values.length || end - start > longest;
      if (silent) found.silences.push([start, end]);
      else if (Math.max(...jumps) >= least) found.gaps.push([start, end]);
    }
    start = end + 1;
  }
  return found;
}

/** Return one gap per window, each at a random position. */
function randomGaps() {
  const samples = sound.channels[0].length, gaps = [];
  const window = Math.round(network.window * sound.rate / network.rate);
  const size = Math.round(data.constants.hidden * window);
  for (let first = 0; first < samples; first += window) {
    const start = first + Math.floor(Math.random() * (window - size + 1));
    if (start < samples) gaps.push([start, Math.min(start + size, samples)]);
  }
  return gaps;
}

/** Start a drag at sample `at`: move the gap there, or start a new gap if there is none.
 * Returns a function that maps the pointer's position, in samples, to [start, end] of the gap. */
function takeGap(at) {
  const {gaps} = state, under = gaps.findIndex(([start, end]) => at >= start && at < end);
  const [start, end] = gaps[under] ?? [], samples = sound.channels[0].length;
  const shift = now => clamp(Math.round(now - at), -start, samples - end);
  const moved = now => [start + shift(now), end + shift(now)];
  const spanned = now => [Math.floor(Math.min(at, now)), Math.ceil(Math.max(at, now))];
  state.chosen = under < 0 ? gaps.push([at, at]) - 1 : under;
  return under < 0 ? spanned : moved;
}

/** Arrow keys move the selected gap or, with Shift, resize it. Enter adds a gap, and Delete removes
 * the selected one. */
function cutByKey(key, [right], shift) {
  const {gaps} = state;
  if (state.chosen < 0) state.chosen = gaps.length - 1;
  const samples = sound.channels[0].length, [start, end] = gaps[state.chosen] ?? [];
  if (key === "Delete") {
    gaps.splice(state.chosen, 1);
    state.chosen = gaps.length - 1;
  } else if (key === "Enter" || end === undefined) {
    state.chosen = gaps.push([Math.round(samples / 2), Math.round(0.525 * samples)]) - 1;
  } else {
    const least = shift ? start + LEAST_GAP - end : -start;
    const by = clamp(Math.round(right * samples / 200), least, samples - end);
    gaps[state.chosen] = [shift ? start : start + by, end + by];
  }
  chop();
  states.save();
}
function listenToGaps() {
  const sampleAt = x => clamp(x, 0, 1) * sound.channels[0].length;
  let gapAt = null;
  dragged(element("input-wave"), {
    down: x => { gapAt = takeGap(sampleAt(x)); chop(); },
    move: x => { state.gaps[state.chosen] = gapAt(sampleAt(x)); chop(); },
    up: () => {
      state.gaps = state.gaps.filter(([start, end]) => end - start >= LEAST_GAP);
      state.chosen = Math.min(state.chosen, state.gaps.length - 1);
      chop();
      states.save();
    },
  });
  onKeys(element("input-wave"), ["Enter", "Delete"], cutByKey);
}
