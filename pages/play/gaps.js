// Gaps in sounds, [start, end] in samples: those of a file, and those the user cuts.

const LEAST_GAP = 8; // samples, of a gap that the user cuts
const MISSING = 0.2; // fraction of each window in a random gap
const cutter = {chosen: null, drag: null}; // a gap's number; the gap for a pointer's position

const peakOf = values => values.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0);

/** Gaps and silences of a file's channel, by the rule of files/gaps.py. Both are runs of exact
 * zeros. A gap lies between two sounds, is at most a window long, and begins or ends with a jump.
 * Longer runs and those at both ends are silence. */
function findGaps(values, rate) {
  const {gapSeconds, gapJump} = data.constants, found = {gaps: [], silences: []};
  const longest = network.window / network.rate * rate, jump = gapJump * peakOf(values);
  for (let start = 0, end = 0; end <= values.length; end++) {
    if (values[end] === 0) continue;
    if (end - start >= gapSeconds * rate) {
      const silent = start === 0 || end === values.length || end - start > longest;
      if (silent) found.silences.push([start, end]);
      else if (Math.abs(values[start - 1]) >= jump || Math.abs(values[end]) >= jump) {
        found.gaps.push([start, end]);
      }
    }
    start = end + 1;
  }
  return found;
}

/** One gap per window, at random. */
function randomGaps() {
  const samples = sound.channels[0].length, gaps = [];
  const window = Math.round(network.window * sound.rate / network.rate);
  const size = Math.round(MISSING * window);
  for (let first = 0; first < samples; first += window) {
    const start = first + Math.floor(Math.random() * (window - size + 1));
    if (start < samples) gaps.push([start, Math.min(start + size, samples)]);
  }
  return gaps;
}

/** A pointer pressed on a gap moves it; elsewhere it starts a new one. */
function takeGap(at) {
  const samples = sound.channels[0].length;
  cutter.chosen = state.gaps.findIndex(([start, end]) => at >= start && at < end);
  if (cutter.chosen >= 0) {
    const [start, end] = state.gaps[cutter.chosen];
    cutter.drag = now => {
      const shift = clamp(Math.round(now - at), -start, samples - end);
      return [start + shift, end + shift];
    };
  } else {
    cutter.drag = now => [Math.floor(Math.min(at, now)), Math.ceil(Math.max(at, now))];
    cutter.chosen = state.gaps.push(cutter.drag(at)) - 1;
  }
  chop();
}

function dropGap() {
  state.gaps = state.gaps.filter(([start, end]) => end - start >= LEAST_GAP);
  cutter.chosen = Math.min(cutter.chosen, state.gaps.length - 1);
  chop();
  states.save();
}

/** Arrow keys move the chosen gap, with Shift they resize it. Enter adds a gap, Delete removes the
 * chosen one, n chooses the next. */
function cutByKey(event) {
  const step = ARROWS[event.key]?.[0], {gaps} = state, samples = sound.channels[0].length;
  if (!step && !["Enter", "Delete", "n"].includes(event.key)) return;
  event.preventDefault();
  cutter.chosen ??= gaps.length - 1;
  if (event.key === "n") {
    cutter.chosen = (cutter.chosen + 1) % Math.max(1, gaps.length);
  } else if (event.key === "Delete") {
    gaps.splice(cutter.chosen, 1);
    cutter.chosen = gaps.length - 1;
  } else if (event.key === "Enter" || !gaps[cutter.chosen]) {
    cutter.chosen = gaps.push([Math.round(samples / 2), Math.round(samples * 0.525)]) - 1;
  } else {
    const [start, end] = gaps[cutter.chosen], lowest = event.shiftKey ? start + LEAST_GAP - end : -start;
    const shift = clamp(Math.round(step * samples / 200), lowest, samples - end);
    gaps[cutter.chosen] = [event.shiftKey ? start : start + shift, end + shift];
  }
  chop();
  states.save();
}

function listenToGaps() {
  const canvas = element("input-wave");
  const sampleAt = event => clamp(placeOn(canvas, event)[0], 0, 1) * sound.channels[0].length;
  dragged(canvas, {
    down: event => takeGap(sampleAt(event)),
    move: event => {
      state.gaps[cutter.chosen] = cutter.drag(sampleAt(event));
      chop();
    },
    up: dropGap,
  });
  canvas.addEventListener("keydown", cutByKey);
}
