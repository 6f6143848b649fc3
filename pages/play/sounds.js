// The page of a sound model: the user cuts gaps into a sound, and the network restores it.
const KEYS = "asdfghjkl;zxcvbnm"; // the keyboard's keys for the notes, in order
const {notes} = data; // [{name, frequency, amplitudes, decays}]; null for a model of recordings

// from: "notes" (named in `tune`), "window" (held-out window `number`), "long" (the long held-out
// recording) or "own" (the user's file, {name, ...sound}). gaps: only those that the user cuts.
const state = {from: "notes", tune: [], number: 0, noise: data.noise, gaps: [], own: null};
// channels: samples before the user cuts gaps. found: gaps and silences in the file, per channel.
// rms: level of the training data, or null if the sound already has it.
const sound = {rate: 0, bits: 16, channels: [], found: [], rms: null};
const shown = {input: null, restored: null}; // {rate, bits, channels}
const timers = {}; // of the spectrograms to draw

/** Return notes in sequence with faded ends, like `Notes.long` in audio_utils.py without noise. */
function synthesize(names, phase) {
  const {noteSeconds, fadeSeconds} = data.constants, {rate} = network;
  const samples = Math.round(noteSeconds * rate);
  const tune = names.map(name => notes.find(note => note.name === name));
  let angle = 2 * Math.PI * phase;
  return new Float32Array(names.length * samples).map((_, at) => {
    const i = at % samples, {frequency, amplitudes, decays} = tune[Math.floor(at / samples)];
    const edge = Math.min(1, (Math.min(i, samples - 1 - i) + 0.5) / rate / fadeSeconds);
    angle += 2 * Math.PI * frequency / rate;
    return Math.sin(0.5 * Math.PI * edge) ** 2 * amplitudes.reduce((sum, amplitude, k) =>
      sum + amplitude * Math.exp(-decays[k] * i / rate) * Math.sin((k + 1) * angle), 0);
  });
}
function cleanSound({uniform}) {
  const {from, tune, number} = state, {window} = network;
  if (from === "notes") return synthesize(tune, uniform());
  if (from === "long") return data.long;
  return data.windows.subarray(number * window, (number + 1) * window);
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
  const samples = sound.channels[0].length;
  state.gaps = state.gaps.map(([start, end]) => [start, Math.min(end, samples)]);
  state.gaps = state.gaps.filter(([start, end]) => start < end);
  element("noise").disabled = own;
  chop();
}

/** Return all gaps of each channel: those found in the file and those that the user cut. */
const gapsOf = () => sound.found.map(({gaps}) => [...gaps, ...state.gaps]);

/** Show the sound with its gaps, and restore it in the worker. */
function chop() {
  const {rate, bits, rms, found, channels} = sound, gaps = gapsOf();
  shown.input = {rate, bits, channels: channels.map((values, i) => silenced(values, gaps[i]))};
  draw("input");
  const hidden = gaps.map((some, i) => [...some, ...found[i].silences]);
  restorer.ask({channels, gaps: hidden, rate, rms}, restored => {
    const kept = restored.map((values, i) => silenced(values, found[i].silences));
    shown.restored = {rate, bits, channels: kept};
    draw("restored");
    offerDownload();
  });
}

/** Draw "input" or "restored". During a drag, the spectrogram waits for a pause. */
function draw(which) {
  if (!shown[which]) return;
  const {rate, channels} = shown[which], chosen = which === "input" && state.gaps[cutter.chosen];
  const limit = 1.05 * Math.max(0.01, peakOf(shown.input.channels[0]));
  drawWaveform(element(`${which}-wave`), channels[0], gapsOf()[0], chosen, limit);
  clearTimeout(timers[which]);
  const later = () => drawSpectrogram(element(`${which}-spectrum`), channels[0], rate);
  timers[which] = setTimeout(later, 40);
  const count = channels.length > 1 ? `, ${channels.length} channels` : "";
  const seconds = channels[0].length / rate, kHz = highest(rate) / 1000;
  element(`${which}-says`).textContent = `${seconds.toFixed(2)} s, ${rate} Hz${count}; ` +
    `spectrogram up to ${kHz.toPrecision(2)} kHz`;
}
function set(change) {
  cutter.chosen = -1;
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
  notes.forEach(({name}, i) => {
    const key = make("button", {type: "button", className: /[#b]/.test(name) ? "black" : ""});
    key.append(name, make("small", {textContent: KEYS[i] ?? ""}));
    key.addEventListener("click", () => press(name));
    element("keys").append(key);
  });
  addEventListener("keydown", event => {
    const {key, ctrlKey, metaKey, altKey, repeat, defaultPrevented} = event;
    const note = key.length === 1 && notes[KEYS.indexOf(key)];
    if (note && !(ctrlKey || metaKey || altKey || repeat || defaultPrevented)) press(note.name);
  });
}
async function openFile(file) {
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
function offerDownload() {
  const link = element("download"), name = state.from === "own" ? state.own.name : "notes";
  URL.revokeObjectURL(link.href);
  const href = URL.createObjectURL(new Blob([writeWav(shown.restored)], {type: "audio/wav"}));
  Object.assign(link, {href, download: `${name}-restored.wav`, hidden: false});
}
function describe() {
  const {from, tune, number, noise, gaps} = state;
  const what = {notes: tune, window: number, long: "", own: ""}[from];
  return {[from]: what, noise, ...(gaps.length && {gaps: gaps.flat()})};
}
function restoreState(text) {
  const names = (text.get("notes") ?? "").split(",");
  const all = notes?.map(note => note.name), known = names.filter(name => all?.includes(name));
  const ends = numbersFrom(text.get("gaps")).map(Math.floor);
  const pairs = ends.flatMap((start, i) => i % 2 ? [] : [[start, ends[i + 1]]]);
  const made = notes ? "notes" : text.has("window") ? "window" : "long";
  Object.assign(state, {
    from: text.has("own") && state.own ? "own" : made,
    gaps: pairs.filter(([start, end]) => start >= 0 && start < end),
    tune: known.length ? known.slice(0, 60) : all,
    number: integerFrom(text.get("window"), data.count, 0),
    noise: clamp(Number(text.get("noise") ?? data.noise) || 0, 0, 1),
  });
  element("noise").value = state.noise;
  build();
}
function listen() {
  onClick("scale", () => set({from: "notes", tune: notes.map(note => note.name), gaps: []}));
  onClick("long", () => set({from: "long", gaps: []}));
  onClick("chop", () => set({gaps: randomGaps()}));
  onClick("whole", () => set({gaps: []}));
  onClick("input-play", event => player.play(shown.input, event.currentTarget));
  onClick("restored-play", event => player.play(shown.restored, event.currentTarget));
  onChange("window", ({value}) => set(
    {from: "window", number: integerFrom(value, data.count, 0), gaps: []}));
  onInput("noise", ({value}) => { state.noise = Number(value); build(); });
  onChange("noise", () => states.save());
  onChange("file", ({files}) => openFile(files[0]));
  for (const name of ["dragover", "drop"]) addEventListener(name, event => event.preventDefault());
  addEventListener("drop", ({dataTransfer}) => openFile(dataTransfer.files[0]));
  listenToGaps();
}

for (const name of ["windows", "long"]) if (data[name]) data[name] = floatsOf(bytesOf(data[name]));
const map = new LatentMap(element("map"), data.map, {
  hover: place => gliding.toward(place),
  down: place => gliding.down(place), up: () => gliding.up(),
});
const states = new StateHistory(describe, restoreState);
if (notes) makeKeyboard();
listen();
redrawnBy(() => ["input", "restored"].forEach(draw), element("input-wave"));
states.start();
