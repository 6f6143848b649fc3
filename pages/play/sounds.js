// The page of a model of sounds: a sound is chopped and restored by the network, in a worker: the page stays alive.

const KEYS = "asdfghjkl;zxcvbnm", NOTE_SECONDS = 0.5, FADE_SECONDS = 0.002; // as in audio_utils.py
const MISSING = 0.2, LEAST_GAP = 8; // of each window, by "chop at random"; samples
const GAP_SECONDS = 0.001; // zeros for so long in a file are a gap; what is longer than a window is silence
const GLIDE_HOPS = 16, GLIDE_SECONDS = 30, AUDIBLE_RATE = 8000; // of a glide; the least rate that browsers play
const LEVEL = 0.25, PULL = 0.06; // RMS of a glide; how far each hop goes towards the note under the pointer
const MAGMA = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];
const COLUMNS = 300, FLOOR_DB = -80; // of a spectrogram
const {notes} = data; // [{name, frequency, amplitudes, decays}]; null for a model of recordings

// from: "notes" (their names in `tune`), "window" and "long" of recordings held out, or "own", a file. gaps: [start,
// end] in samples of the sound.
const state = {from: notes ? "notes" : "long", tune: [], number: 0, noise: data.noise, seed: 1, gaps: [], own: null};
const sound = {}; // from the state: rate, bits, channels before it is chopped, zeros found in each, rms to bring it to
const shown = {input: null, restored: null}; // {rate, bits, channels}

// ---- the sound

/** Notes one after the other, faded at both ends, and their noise, as noisy_scale of audio_utils.py. */
function synthesize(names, {uniform, normal}) {
  const {rate} = network, samples = Math.round(NOTE_SECONDS * rate), tone = new Float32Array(names.length * samples);
  let angle = 2 * Math.PI * uniform();
  names.forEach((name, place) => {
    const {frequency, amplitudes, decays} = notes.find(note => note.name === name);
    for (let i = 0; i < samples; i++) {
      angle += 2 * Math.PI * frequency / rate;
      const ends = clamp((Math.min(i, samples - 1 - i) + 0.5) / rate / FADE_SECONDS, 0, 1);
      const level = Math.sin(0.5 * Math.PI * ends) ** 2;
      amplitudes.forEach((amplitude, partial) => {
        const decayed = amplitude * Math.exp(-decays[partial] * i / rate);
        tone[place * samples + i] += level * decayed * Math.sin((partial + 1) * angle);
      });
    }
  });
  return {tone, clean: tone.map(value => value + state.noise * normal())};
}

/** A recording held out, and the noise that is asked for. */
function recording({normal}) {
  const {window} = network, all = state.from === "long" ? data.long : data.windows;
  const first = state.from === "long" ? 0 : state.number * window;
  const tone = all.slice(first, state.from === "long" ? all.length : first + window);
  return {tone, clean: tone.map(value => value + state.noise * normal())};
}

/** Zeros in a file: `gaps` to be filled, and `silences`, longer than a window, which stay. */
function zerosOf(values, rate) {
  const least = Math.max(2, Math.ceil(GAP_SECONDS * rate)), most = network.window / network.rate * rate;
  const zeros = {gaps: [], silences: []};
  for (let i = 0, start = 0; i <= values.length; i++) {
    if (i < values.length && values[i] === 0) continue;
    if (i - start >= least) zeros[i - start > most ? "silences" : "gaps"].push([start, i]);
    start = i + 1;
  }
  return zeros;
}

/** Make the sound that the state asks for; its reconstruction follows. */
function build() {
  const random = randomBy(state.seed), own = state.from === "own";
  const made = own ? {} : notes ? synthesize(state.tune, random) : recording(random);
  const channels = own ? state.own.channels : [made.clean], rate = own ? state.own.rate : network.rate;
  const found = channels.map(values => own ? zerosOf(values, rate) : {gaps: [], silences: []});
  const bits = own ? state.own.bits : 16, rms = own ? data.rms : null;
  Object.assign(sound, {rate, bits, channels, found, rms, tone: made.tone});
  const {length} = channels[0];
  state.gaps = state.gaps.filter(([start]) => start < length).map(([start, end]) => [start, Math.min(end, length)]);
  element("noise").disabled = own;
  restorer.drop();
  chop();
}

/** All gaps of each channel: those in the file and those made here. */
const gapsOf = () => sound.found.map(({gaps}) => [...gaps, ...state.gaps].sort((a, b) => a[0] - b[0]));

function chop() {
  const gaps = gapsOf(), channels = sound.channels.map(values => values.slice());
  channels.forEach((values, channel) => gaps[channel].forEach(([start, end]) => values.fill(0, start, end)));
  shown.input = {rate: sound.rate, bits: sound.bits, channels};
  draw("input");
  const {rate, bits, rms, found} = sound, hidden = gaps.map((some, i) => [...some, ...found[i].silences]);
  restorer.ask({channels: sound.channels, gaps: hidden, rate, rms}, restored => {
    restored.forEach((values, i) => found[i].silences.forEach(([start, end]) => values.fill(0, start, end)));
    shown.restored = {rate, bits, channels: restored};
    draw("restored");
    offer();
  });
}

function randomGaps() {
  const samples = sound.channels[0].length, window = Math.round(network.window * sound.rate / network.rate), gaps = [];
  for (let first = 0; first < samples; first += window) {
    const size = Math.round(MISSING * window), start = first + Math.floor(Math.random() * (window - size + 1));
    if (start < samples) gaps.push([start, Math.min(start + size, samples)]);
  }
  return gaps;
}

// ---- the worker

const restorer = {
  worker: null, number: 0, busy: false, waiting: null,
  /** Restore a sound; of several asked for meanwhile, only the last. */
  ask(job, done) {
    if (this.busy) return void (this.waiting = [job, done]);
    this.worker ??= this.start();
    Object.assign(this, {busy: true, done, begun: performance.now(), number: this.number + 1});
    this.worker.postMessage({number: this.number, ...job});
    element("progress").classList.remove("idle"), element("progress").value = 0;
  },
  start() {
    const code = [`${element("core").textContent}\nserve();`];
    const address = URL.createObjectURL(new Blob(code, {type: "text/javascript"})), worker = new Worker(address);
    URL.revokeObjectURL(address);
    worker.postMessage({network});
    worker.onmessage = ({data: answer}) => { if (answer.number === this.number) this.hear(answer); };
    return worker;
  },
  hear({share, restored}) {
    if (share) return void (element("progress").value = share);
    Object.assign(this, {busy: false, milliseconds: performance.now() - this.begun});
    element("progress").classList.add("idle");
    this.done(restored);
    const next = this.waiting;
    this.waiting = null;
    if (next) this.ask(...next);
  },
  /** What is being restored is not wanted any more. */
  drop() {
    if (this.busy) this.worker.terminate(), this.worker = null;
    Object.assign(this, {busy: false, waiting: null});
  },
};

// ---- pictures

/** What gives the spectrum's magnitudes (size / 2) of real values; `size`: a power of two. */
function fourier(size) {
  const bits = Math.log2(size), mirrored = new Uint32Array(size), angle = i => 2 * Math.PI * i / size;
  for (let i = 1; i < size; i++) mirrored[i] = mirrored[i >> 1] >> 1 | (i & 1) << (bits - 1);
  const cosines = Float64Array.from(mirrored, (_, i) => Math.cos(angle(i)));
  const sines = Float64Array.from(mirrored, (_, i) => Math.sin(angle(i)));
  const re = new Float64Array(size), im = new Float64Array(size);
  return values => {
    for (let i = 0; i < size; i++) re[mirrored[i]] = values[i];
    im.fill(0);
    for (let half = 1, turn = size >> 1; half < size; half *= 2, turn >>= 1) {
      for (let a = 0; a < size; a++) {
        if (a & half) continue;
        const b = a + half, at = (a & (half - 1)) * turn, cos = cosines[at], sin = -sines[at];
        const x = re[b] * cos - im[b] * sin, y = re[b] * sin + im[b] * cos;
        re[b] = re[a] - x, im[b] = im[a] - y, re[a] += x, im[a] += y;
      }
    }
    return re.subarray(0, size >> 1).map((value, i) => Math.hypot(value, im[i]));
  };
}

const highest = () => state.from === "notes" ? Math.min(network.rate / 2, Math.max(2000, 4 * Math.max(...notes.map(
  note => note.frequency)))) : network.rate / 2; // Hz, of the spectrograms

/** Pixels of 256 levels from low to high. */
function palette() {
  return Uint32Array.from({length: 256}, (_, level) => {
    const place = level / 255 * (MAGMA.length - 1), step = Math.min(Math.floor(place), MAGMA.length - 2);
    const mixed = MAGMA[step].map((low, i) => low + (place - step) * (MAGMA[step + 1][i] - low));
    const [red, green, blue] = mixed.map(Math.round);
    return 0xff000000 | blue << 16 | green << 8 | red;
  });
}

/** Level over time and frequency, dB relative to a full-scale sine, as spectrogram_db of audio_utils.py. */
function drawSpectrogram(canvas, {rate, channels: [values]}) {
  const size = 2 ** Math.floor(Math.log2(clamp(0.064 * rate, 64, 8192)));
  const taper = hann(size), spectrumOf = fourier(size), part = new Float64Array(size);
  const rows = Math.max(8, Math.min(size / 2, Math.round(highest() / rate * size))), colours = palette();
  const pixels = new ImageData(COLUMNS, rows), words = new Uint32Array(pixels.data.buffer);
  const full = taper.reduce((a, b) => a + b) / 2, spare = Math.max(0, values.length - size);
  for (let column = 0; column < COLUMNS; column++) {
    const first = Math.round(column / (COLUMNS - 1) * spare); // within the sound
    for (let i = 0; i < size; i++) part[i] = taper[i] * (values[first + i] ?? 0);
    const levels = spectrumOf(part);
    for (let row = 0; row < rows; row++) {
      const db = 20 * Math.log10(levels[row] / full + 1e-9);
      words[(rows - 1 - row) * COLUMNS + column] = colours[Math.round(255 * clamp(1 - db / FLOOR_DB, 0, 1))];
    }
  }
  [canvas.width, canvas.height] = [COLUMNS, rows];
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** Least and greatest sample under each pixel; gaps are shaded. */
function drawWaveform(canvas, {channels: [values]}, gaps, limit) {
  const {pen, width, height} = fitted(canvas), x = sample => sample / values.length * width;
  pen.fillStyle = colour("a");
  for (let column = 0; column < width; column++) {
    const first = Math.floor(column / width * values.length), end = Math.ceil((column + 1) / width * values.length);
    let [low, high] = [Infinity, -Infinity];
    for (let i = first; i < end; i++) low = Math.min(low, values[i]), high = Math.max(high, values[i]);
    pen.fillRect(column, height * (0.5 - high / limit / 2), 1, Math.max(1, height * (high - low) / limit / 2));
  }
  gaps.forEach(([start, end]) => {
    pen.fillStyle = "#d6272844", pen.fillRect(x(start), 0, Math.max(1, x(end) - x(start)), height);
  });
  if (canvas.id !== "input-wave" || cutter.chosen === null || !state.gaps[cutter.chosen]) return;
  const [start, end] = state.gaps[cutter.chosen];
  pen.strokeStyle = colour("ink"), pen.lineWidth = 2, pen.strokeRect(x(start), 1, x(end) - x(start), height - 2);
}

function draw(which) {
  const what = shown[which];
  if (!what) return;
  const peak = shown.input.channels[0].reduce((high, value) => Math.max(high, Math.abs(value)), 0);
  drawWaveform(element(`${which}-wave`), what, gapsOf()[0], 1.05 * Math.max(0.01, peak));
  clearTimeout(draw[which]); // while something is dragged the waveform follows, the spectrogram comes after
  draw[which] = setTimeout(() => drawSpectrogram(element(`${which}-spectrum`), what), 40);
  const {rate, channels} = what, kind = channels.length > 1 ? `, ${channels.length} channels` : "";
  const limits = `spectrogram up to ${(highest() / 1000).toPrecision(2)} kHz`;
  element(`${which}-says`).textContent = `${(channels[0].length / rate).toFixed(2)} s, ${rate} Hz${kind}; ${limits}`;
}

// ---- gaps on the waveform

const cutter = {chosen: null, grip: null};

function cutByPointer(what, event) {
  const samples = sound.channels[0].length, at = clamp(placeOn(element("input-wave"), event)[0], 0, 1) * samples;
  if (what === "down") takeGap(at);
  else if (what === "up") {
    state.gaps = state.gaps.filter(([start, end]) => end - start >= LEAST_GAP);
    cutter.chosen = Math.min(cutter.chosen, state.gaps.length - 1);
    remembered.changed();
  } else state.gaps[cutter.chosen] = cutter.grip(at);
  chop();
}

/** A gap under the pointer is moved; elsewhere another one begins. */
function takeGap(at) {
  const samples = sound.channels[0].length, under = state.gaps.findIndex(([start, end]) => at >= start && at < end);
  cutter.chosen = under < 0 ? state.gaps.push([Math.floor(at), Math.floor(at)]) - 1 : under;
  const [start, end] = state.gaps[cutter.chosen];
  cutter.grip = under < 0
    ? now => [Math.floor(Math.min(at, now)), Math.ceil(Math.max(at, now))]
    : now => { const by = clamp(Math.round(now - at), -start, samples - end); return [start + by, end + by]; };
}

/** Arrows move the chosen gap, with Shift they resize it; Enter adds one, Delete removes it, n goes to the next. */
function cutByKey(event) {
  const step = ARROWS[event.key]?.[0], {gaps} = state, samples = sound.channels[0].length;
  if (!step && !["Enter", "Delete", "n"].includes(event.key)) return;
  event.preventDefault();
  cutter.chosen ??= gaps.length - 1;
  if (event.key === "n") cutter.chosen = (cutter.chosen + 1) % Math.max(1, gaps.length);
  else if (event.key === "Delete") gaps.splice(cutter.chosen, 1), cutter.chosen = gaps.length - 1;
  else if (event.key === "Enter" || !gaps[cutter.chosen]) {
    cutter.chosen = gaps.push([samples / 2, samples / 2 + samples / 40].map(Math.round)) - 1;
  } else {
    const [start, end] = gaps[cutter.chosen], by = Math.round(step * samples / 200);
    const least = event.shiftKey ? LEAST_GAP - (end - start) : -start;
    const move = clamp(by, least, samples - end);
    gaps[cutter.chosen] = [event.shiftKey ? start : start + move, end + move];
  }
  chop();
  remembered.changed();
}

// ---- listening

const player = {
  context: null, source: null,
  /** Browsers let a page sound only once somebody has pressed something. */
  open() {
    this.context ??= new AudioContext();
    this.context.resume();
    return this.context;
  },
  bufferOf({rate, channels}) {
    const played = Math.max(rate, AUDIBLE_RATE), length = Math.round(channels[0].length * played / rate);
    const buffer = this.open().createBuffer(channels.length, length, played);
    channels.forEach((values, i) => {
      buffer.copyToChannel(played === rate ? values : resample(values, rate, played, length), i);
    });
    return buffer;
  },
  play(what, button) {
    const again = this.button === button && this.source;
    this.stop();
    if (!what || again) return;
    const source = new AudioBufferSourceNode(this.open(), {buffer: this.bufferOf(what)});
    source.connect(this.context.destination);
    source.onended = () => { if (this.source === source) this.stop(); };
    source.start();
    Object.assign(this, {source, button});
    button?.classList.add("playing");
  },
  stop() {
    this.source?.stop();
    this.button?.classList.remove("playing");
    Object.assign(this, {source: null, button: null});
  },
};

// ---- the map: from sound to sound through latent space

/** Samples after which a window repeats itself: of its note, or where it is most like itself. */
function periodOf(values, n) {
  const note = notes?.find(({name}) => name === map.nameOf(n));
  if (note) return network.rate / note.frequency;
  let [best, most] = [values.length >> 1, -Infinity];
  for (let lag = Math.ceil(network.rate / 2000); lag <= values.length / 2; lag++) {
    let product = 0, energy = 1e-12;
    for (let i = lag; i < values.length; i++) {
      product += values[i] * values[i - lag], energy += values[i] ** 2 + values[i - lag] ** 2;
    }
    if (2 * product / energy > most + 0.02) [best, most] = [lag, 2 * product / energy];
  }
  return best;
}

/** A held-out code's sound, carried on by its period, so that it has a code at every phase. */
class Tone {
  constructor(n) {
    const {window} = network, values = decode(network, map.code(n)), period = periodOf(values, n), codes = new Map();
    const size = window + Math.ceil(period), carried = Float32Array.from({length: size}, (_, i) => {
      const from = i < window ? i : i - period * Math.ceil((i - window + 1) / period), low = Math.floor(from);
      return values[low] + (from - low) * ((values[low + 1] ?? values[low]) - values[low]);
    });
    Object.assign(this, {codes, carried, period, weight: 0});
  }

  codeAt(place) {
    const start = Math.floor(place % this.period), {codes, carried} = this;
    if (!codes.has(start)) codes.set(start, encode(network, carried.subarray(start, start + network.window)));
    return codes.get(start);
  }
}

/** The glide of signals/blending.py, hop by hop: at each place the codes are mixed that the tones would have there had
 * they gone on all the time; windows unrelated in phase would cancel. */
class Glide {
  constructor() {
    const {window, rate} = network, hop = Math.max(1, Math.floor(window / GLIDE_HOPS)), taper = hann(window);
    const share = taper.reduce((a, b) => a + b);
    Object.assign(this, {hop, taper, share, place: 0, tones: new Map(), sum: new Float64Array(GLIDE_SECONDS * rate)});
  }

  /** One hop further towards held-out code `goal`: the samples that are now complete, or null in the first moment. */
  step(goal) {
    const {window} = network, {hop, taper, sum, place} = this;
    const values = decode(network, this.mixTowards(goal));
    const rms = Math.sqrt(values.reduce((energy, value) => energy + value * value, 0) / window) + 1e-9;
    for (let i = 0; i < window; i++) sum[place + i] += taper[i] * values[i] / rms;
    this.place += hop;
    const first = place - (window >> 1); // what is half a window behind will not change, nor will all around it
    return first < window ? null : this.levelled(first, hop);
  }

  mixTowards(goal) {
    const fresh = !this.tones.size, z = new Float32Array(network.latent);
    if (!this.tones.has(goal)) this.tones.set(goal, new Tone(goal));
    let total = 0;
    for (const [n, tone] of this.tones) {
      tone.weight = fresh ? 1 : tone.weight + PULL * ((n === goal) - tone.weight);
      if (tone.weight < 0.01 && n !== goal) this.tones.delete(n);
      else total += tone.weight;
    }
    for (const tone of this.tones.values()) {
      tone.codeAt(this.place).forEach((value, i) => { z[i] += tone.weight / total * value; });
    }
    return z;
  }

  /** Mixtures are softer; the sum is brought to one level too. */
  levelled(first, count) {
    const {taper, share, sum} = this, half = taper.length >> 1;
    return Float32Array.from({length: count}, (_, n) => {
      let power = 0;
      for (let i = 0; i < taper.length; i += 4) power += 4 * taper[i] * (sum[Math.max(0, first + n - half + i)] ** 2);
      return LEVEL * sum[first + n] / Math.sqrt(power / share + 1e-9);
    });
  }
}

const gliding = {
  goal: null, glide: null, timer: null,
  down(place) {
    this.end();
    Object.assign(this, {glide: new Glide(), context: player.open(), held: true, left: 0.4});
    this.out = new GainNode(this.context, {gain: 0});
    this.out.connect(this.context.destination);
    this.time = this.context.currentTime + 0.05;
    this.out.gain.setValueAtTime(0, this.time), this.out.gain.setTargetAtTime(1, this.time, 0.01);
    this.toward(place);
    this.timer = setInterval(() => this.fill(), 30);
  },
  toward(place) {
    const [[, n]] = map.nearest(place);
    this.goal = n;
    element("near").textContent = `Nearest: ${map.nameOf(n) ?? `no. ${n}`}${this.timer ? "" : "; press to hear it"}`;
  },
  /** A click sounds for a moment, a drag for as long as it lasts. */
  fill() {
    while (this.time < this.context.currentTime + 0.15) {
      const parts = [];
      for (let hop = 0; hop < 8; hop++) parts.push(this.glide.step(this.goal) ?? []);
      const values = Float32Array.from(parts.flatMap(part => [...part]));
      if (!values.length) continue;
      const buffer = player.bufferOf({rate: network.rate, channels: [values]});
      const source = new AudioBufferSourceNode(this.context, {buffer});
      source.connect(this.out), source.start(this.time);
      this.time += buffer.duration, this.left -= buffer.duration;
      const full = this.glide.place + 9 * network.window > this.glide.sum.length;
      if (full || !this.held && this.left <= 0) return this.end();
    }
  },
  up() { this.held = false; },
  end() {
    clearInterval(this.timer);
    this.timer = null;
    this.out?.gain.setTargetAtTime(0, this.time - 0.05, 0.02); // no click at the end
    this.out = null;
  },
};

// ---- what people press

function set(change) {
  cutter.chosen = null;
  Object.assign(state, change);
  build();
  remembered.changed();
}

/** A note that is pressed: alone, or one more of a tune. */
function press(name) {
  const more = element("more").checked && state.from === "notes";
  set({from: "notes", tune: more ? [...state.tune, name] : [name], gaps: more ? state.gaps : []});
  player.stop();
  player.play(shown.input, element("input-play"));
}

function makeKeyboard() {
  const keys = notes.map(({name}, i) => {
    const key = document.createElement("button"), letter = document.createElement("small");
    letter.textContent = KEYS[i] ?? "";
    key.type = "button", key.className = /[#b]/.test(name) ? "black" : "", key.append(name, letter);
    key.addEventListener("click", () => press(name));
    return key;
  });
  element("keys").append(...keys);
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.defaultPrevented) return;
    const note = notes[KEYS.indexOf(event.key)];
    if (note && event.key.length === 1) press(note.name);
  });
}

async function take(file) {
  if (!file) return;
  try {
    const own = readWav(await file.arrayBuffer());
    shown.restored = null;
    set({from: "own", own: {...own, name: file.name.replace(/\.wave?$/i, "")}, gaps: []});
    element("own-says").textContent = `${file.name}: restored on this machine; nothing is sent anywhere`;
  } catch (error) {
    element("own-says").textContent = `${file.name}: ${error.message}. Nothing was changed.`;
  }
}

/** The restored sound as a file to keep. */
function offer() {
  const link = element("download");
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([writeWav(shown.restored)], {type: "audio/wav"}));
  link.download = `${state.from === "own" ? state.own.name : "notes"}-restored.wav`;
  link.hidden = false;
}

function describe() {
  const {from, tune, number, noise, seed, gaps} = state;
  const what = {notes: tune, window: number, long: "", own: ""}[from];
  return {[from]: what, noise, seed, ...(gaps.length && {gaps: gaps.flat()})};
}

function restoreState(text) {
  const known = name => notes?.some(note => note.name === name);
  const names = (text.get("notes") ?? "").split(",").filter(known).slice(0, 60);
  const from = text.has("own") && state.own ? "own" : notes ? "notes" : text.has("window") ? "window" : "long";
  const pairs = numbersFrom(text.get("gaps"), (text.get("gaps") ?? "").split(",").length) ?? [];
  Object.assign(state, {
    from, tune: names.length ? names : notes?.map(note => note.name) ?? [], gaps: [],
    number: wholeFrom(text.get("window"), data.count, 0), seed: wholeFrom(text.get("seed"), 2 ** 32, 1),
    noise: clamp(Number(text.get("noise") ?? data.noise) || 0, 0, 1),
  });
  for (let i = 0; i + 1 < pairs.length; i += 2) {
    const [start, end] = pairs.slice(i, i + 2).map(Math.floor);
    if (start >= 0 && start < end) state.gaps.push([start, end]);
  }
  element("noise").value = state.noise;
  build();
}

function listen() {
  const on = (id, act) => element(id)?.addEventListener("click", act);
  on("scale", () => set({from: "notes", tune: notes.map(note => note.name), gaps: []}));
  on("long", () => set({from: "long", gaps: []}));
  element("window")?.addEventListener("change", event => {
    set({from: "window", number: wholeFrom(event.target.value, data.count, 0), gaps: []});
  });
  on("chop", () => set({gaps: randomGaps()}));
  on("whole", () => set({gaps: []}));
  on("input-play", event => player.play(shown.input, event.currentTarget));
  on("restored-play", event => player.play(shown.restored, event.currentTarget));
  element("noise").addEventListener("input", () => { state.noise = Number(element("noise").value); build(); });
  element("noise").addEventListener("change", () => remembered.changed());
  dragged(element("input-wave"), cutByPointer);
  element("input-wave").addEventListener("keydown", cutByKey);
  element("file").addEventListener("change", event => take(event.target.files[0]));
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => { event.preventDefault(); take(event.dataTransfer.files[0]); });
}

for (const name of ["windows", "long"]) if (data[name]) data[name] = floatsOf(bytesOf(data[name]));
const map = new LatentMap(element("map"), data.map, {
  hover: place => gliding.toward(place), leave: () => { element("near").textContent = ""; },
  down: place => gliding.down(place), up: () => gliding.up(),
});
const remembered = new Remembered(describe, restoreState);
if (notes) makeKeyboard();
listen();
redrawnBy(() => ["input", "restored"].forEach(draw), [element("input-wave"), element("restored-wave")]);
remembered.start();
