// The page of a model of sounds: the network restores a sound that the user chops.

const KEYS = "asdfghjkl;zxcvbnm"; // of the keyboard, for the notes in order
const {notes} = data; // [{name, frequency, amplitudes, decays}]; null for a model of recordings

// from: "notes" (their names in `tune`), held-out "window" `number` or "long" of recordings, or
// "own", a file: {rate, bits, channels, name, found, rms}. gaps: those the user cuts.
const state = {from: "notes", tune: [], number: 0, noise: data.noise, gaps: [], own: null};
// From the state: rate, bits, channels before they are chopped; found: each channel's gaps and
// silences; rms: the level to restore at, null for a sound made at the training level.
const sound = {};
const shown = {input: null, restored: null}; // {rate, bits, channels}
const timers = {}; // of spectrograms

/** Notes one after another with faded ends, as `noisy_scale` in audio_utils.py. */
function synthesize(names, phase) {
  const {noteSeconds, fadeSeconds} = data.constants, {rate} = network;
  const samples = Math.round(noteSeconds * rate);
  const tune = names.map(name => notes.find(note => note.name === name));
  let angle = 2 * Math.PI * phase;
  return Float32Array.from({length: names.length * samples}, (_, at) => {
    const i = at % samples, {frequency, amplitudes, decays} = tune[Math.floor(at / samples)];
    const edge = (Math.min(i, samples - 1 - i) + 0.5) / rate / fadeSeconds;
    angle += 2 * Math.PI * frequency / rate;
    return Math.sin(0.5 * Math.PI * Math.min(edge, 1)) ** 2 * amplitudes.reduce(
      (sum, amplitude, partial) =>
        sum + amplitude * Math.exp(-decays[partial] * i / rate) * Math.sin((partial + 1) * angle),
      0);
  });
}

/** The sound without noise: a tune or a held-out recording. */
function cleanSound({uniform}) {
  const {from, tune, number} = state, {window} = network;
  if (from === "notes") return synthesize(tune, uniform());
  return from === "long" ? data.long : data.windows.subarray(number * window, (number + 1) * window);
}

/** Make the sound that the state describes, and restore it. */
function build() {
  const own = state.from === "own", random = randomBy(1);
  if (own) {
    Object.assign(sound, state.own);
  } else {
    const noisy = cleanSound(random).map(value => value + state.noise * random.normal());
    const found = [{gaps: [], silences: []}];
    Object.assign(sound, {rate: network.rate, bits: 16, channels: [noisy], found, rms: null});
  }
  const {length} = sound.channels[0], within = state.gaps.filter(([start]) => start < length);
  state.gaps = within.map(([start, end]) => [start, Math.min(end, length)]);
  element("noise").disabled = own;
  restorer.drop();
  chop();
}

/** All gaps of each channel: those found in the file and those the user cut. */
const gapsOf = () => sound.found.map(({gaps}) => [...gaps, ...state.gaps]);

/** Show the sound with its gaps, and restore it in the worker. */
function chop() {
  const {rate, bits, rms, found, channels} = sound, gaps = gapsOf();
  const silence = (each, stretches) => {
    const values = each.slice();
    for (const [start, end] of stretches) values.fill(0, start, end);
    return values;
  };
  const chopped = channels.map((values, i) => silence(values, gaps[i]));
  shown.input = {rate, bits, channels: chopped};
  draw("input");
  const hidden = gaps.map((some, i) => [...some, ...found[i].silences]);
  restorer.ask({channels, gaps: hidden, rate, rms}, restored => {
    const kept = restored.map((values, i) => silence(values, found[i].silences));
    shown.restored = {rate, bits, channels: kept};
    draw("restored");
    offer();
  });
}

/** Draw "input" or "restored". The spectrogram waits until the user stops dragging. */
function draw(which) {
  const what = shown[which], chosen = which === "input" ? state.gaps[cutter.chosen] : null;
  if (!what) return;
  const {rate, channels} = what, limit = 1.05 * Math.max(0.01, peakOf(shown.input.channels[0]));
  drawWaveform(element(`${which}-wave`), what, gapsOf()[0], chosen, limit);
  clearTimeout(timers[which]);
  timers[which] = setTimeout(() => drawSpectrogram(element(`${which}-spectrum`), what), 40);
  const kind = channels.length > 1 ? `, ${channels.length} channels` : "";
  const limits = `spectrogram up to ${(highest() / 1000).toPrecision(2)} kHz`;
  const seconds = (channels[0].length / rate).toFixed(2);
  element(`${which}-says`).textContent = `${seconds} s, ${rate} Hz${kind}; ${limits}`;
}

/** Change parts of the state. */
function set(change) {
  cutter.chosen = null;
  Object.assign(state, change);
  build();
  states.save();
}

/** Play a note, alone or added to the tune. */
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
    key.type = "button";
    key.className = /[#b]/.test(name) ? "black" : "";
    key.append(name, letter);
    key.addEventListener("click", () => press(name));
    return key;
  });
  element("keys").append(...keys);
  addEventListener("keydown", event => {
    const {ctrlKey, metaKey, altKey, repeat, defaultPrevented} = event;
    if (ctrlKey || metaKey || altKey || repeat || defaultPrevented) return;
    const note = notes[KEYS.indexOf(event.key)];
    if (note && event.key.length === 1) press(note.name);
  });
}

/** Take a WAV file from the user. */
async function take(file) {
  if (!file) return;
  const says = element("own-says");
  try {
    const own = readWav(await file.arrayBuffer()), name = file.name.replace(/\.wave?$/i, "");
    const found = own.channels.map(values => findGaps(values, own.rate));
    shown.restored = null;
    set({from: "own", own: {...own, name, found, rms: data.rms}, gaps: []});
    says.textContent = `${file.name}: restored in your browser; nothing is uploaded`;
  } catch (error) {
    says.textContent = `${file.name}: ${error.message}`;
  }
}

/** Offer the restored sound as a download. */
function offer() {
  const link = element("download"), name = state.from === "own" ? state.own.name : "notes";
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([writeWav(shown.restored)], {type: "audio/wav"}));
  link.download = `${name}-restored.wav`;
  link.hidden = false;
}

function describe() {
  const {from, tune, number, noise, gaps} = state;
  const what = {notes: tune, window: number, long: "", own: ""}[from];
  return {[from]: what, noise, ...(gaps.length && {gaps: gaps.flat()})};
}

function restoreState(text) {
  const known = name => notes?.some(note => note.name === name);
  const names = (text.get("notes") ?? "").split(",").filter(known).slice(0, 60);
  const made = notes ? "notes" : text.has("window") ? "window" : "long";
  const ends = (text.get("gaps") ?? "").split(",").map(Number), gaps = [];
  for (let i = 0; i + 1 < ends.length; i += 2) {
    const start = Math.floor(ends[i]), end = Math.floor(ends[i + 1]);
    if (start >= 0 && start < end) gaps.push([start, end]);
  }
  Object.assign(state, {
    from: text.has("own") && state.own ? "own" : made,
    tune: names.length ? names : notes?.map(note => note.name),
    number: integerFrom(text.get("window"), data.count, 0),
    noise: clamp(Number(text.get("noise") ?? data.noise) || 0, 0, 1),
    gaps,
  });
  element("noise").value = state.noise;
  build();
}

function listen() {
  onClick("scale", () => set({from: "notes", tune: notes.map(note => note.name), gaps: []}));
  onClick("long", () => set({from: "long", gaps: []}));
  onClick("chop", () => set({gaps: randomGaps()}));
  onClick("whole", () => set({gaps: []}));
  for (const name of ["input", "restored"]) {
    onClick(`${name}-play`, event => player.play(shown[name], event.currentTarget));
  }
  element("window")?.addEventListener("change", event => {
    set({from: "window", number: integerFrom(event.target.value, data.count, 0), gaps: []});
  });
  element("noise").addEventListener("input", event => {
    state.noise = Number(event.target.value);
    build();
  });
  element("noise").addEventListener("change", () => states.save());
  element("file").addEventListener("change", event => take(event.target.files[0]));
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  listenToGaps();
}

for (const name of ["windows", "long"]) if (data[name]) data[name] = floatsOf(bytesOf(data[name]));
const map = new LatentMap(element("map"), data.map, {
  hover: place => gliding.toward(place), leave: () => { element("near").textContent = ""; },
  down: place => gliding.down(place), up: () => gliding.up(),
});
const states = new StateHistory(describe, restoreState);
if (notes) makeKeyboard();
listen();
redrawnBy(() => ["input", "restored"].forEach(draw), element("input-wave"), element("restored-wave"));
states.start();
