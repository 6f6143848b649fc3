// The page of a sound model: the user cuts gaps into a sound, and the network restores it.
const {notes} = data; // [{name, frequency, tone}]; null for a model of recordings

// from: "notes" (named in `tune`), "window" (held-out window `number`), "long" (the long held-out
// recording) or "own" (the user's file, {name, ...sound}). gaps: only those that the user cuts.
// chosen: index of the selected gap, or -1.
const state = {
  from: "notes", tune: [], number: 0, noise: data.noise, gaps: [], chosen: -1, own: null};
// channels: samples before the user cuts gaps. found: gaps and silences in the file, per channel.
const sound = {rate: 0, channels: [], found: []};
const shown = {input: null, restored: null}; // {rate, channels}
const timers = {}; // of the spectrograms to draw

/** Return held-out windows, the long recording, or notes in sequence. */
function cleanSound() {
  const {from, tune, number} = state, {window} = network;
  if (from === "long") return data.long;
  if (from === "window") return data.windows.subarray(number * window, (number + 1) * window);
  return Float32Array.from(tune.flatMap(name => notes.find(note => note.name === name).tone));
}

/** Make the sound that the state describes, and restore it. */
function build() {
  const own = state.from === "own", random = randomBy(1);
  if (own) {
    Object.assign(sound, state.own);
  } else {
    const noisy = cleanSound().map(value => value + state.noise * random.normal());
    const found = [{gaps: [], silences: []}];
    Object.assign(sound, {rate: network.rate, channels: [noisy], found});
  }
  const samples = sound.channels[0].length;
  const within = state.gaps.map(([start, end]) => [start, Math.min(end, samples)]);
  state.gaps = within.filter(([start, end]) => start < end);
  element("noise").disabled = own;
  chop();
}

/** Return all gaps of each channel: those found in the file and those that the user cut. */
const gapsOf = () => sound.found.map(({gaps}) => [...gaps, ...state.gaps]);

/** Show the sound with its gaps, and restore it in the worker. */
function chop() {
  const {rate, found, channels} = sound, gaps = gapsOf();
  shown.input = {rate, channels: channels.map((values, i) => silenced(values, gaps[i]))};
  draw("input");
  const hidden = gaps.map((some, i) => [...some, ...found[i].silences]);
  element("progress").className = "";
  worker.ask({channels, gaps: hidden, rate}, ({restored}) => {
    element("progress").className = "idle";
    const kept = restored.map((values, i) => silenced(values, found[i].silences));
    shown.restored = {rate, channels: kept};
    draw("restored");
    offerDownload();
  });
}

/** Draw "input" or "restored". During a drag, the spectrogram waits for a pause. */
function draw(which) {
  if (!shown[which]) return;
  const {rate, channels} = shown[which], chosen = which === "input" && state.gaps[state.chosen];
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
  Object.assign(state, {chosen: -1}, change);
  build();
  states.save();
}

function press(name) {
  set({from: "notes", tune: [name], gaps: []});
  player.stop();
  player.play(shown.input, element("input-play"));
}

function makeKeyboard() {
  notes.forEach(({name}) => {
    const className = /[#b]/.test(name) ? "black" : "";
    const key = make("button", {type: "button", className, textContent: name});
    key.addEventListener("click", () => press(name));
    element("keys").append(key);
  });
}

/** Restore the user's sound. read() returns its rate, bits and channels. */
async function open(name, read) {
  const says = element("own-says");
  try {
    const own = await read(), found = own.channels.map(values => findGaps(values, own.rate));
    shown.restored = null;
    set({from: "own", own: {...own, found, name: name.replace(/\.wave?$/i, "")}, gaps: []});
    says.textContent = `${name}: restored in your browser; nothing is uploaded`;
  } catch (error) {
    says.textContent = `${name}: ${error.message}`;
  }
}
const openFile = file => file && open(file.name, () => readWav(file));

/** Play the note of the nearest point on the map, or restore its window. */
function playNearest(place) {
  const [[, n]] = map.nearest(place), name = map.nameOf(n);
  if (name) press(name);
  else if (!notes) set({from: "window", number: n, gaps: []});
}
function nameNearest(place) {
  const [[, n]] = map.nearest(place);
  element("near").textContent = `Nearest: ${map.nameOf(n) ?? `no. ${n}`}`;
}
function offerDownload() {
  const link = element("download"), name = state.from === "own" ? state.own.name : "notes";
  URL.revokeObjectURL(link.href);
  const href = URL.createObjectURL(writeWav(shown.restored));
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
  if (text.toString()) return;
  state.gaps = randomGaps();
  chop();
}
function listen() {
  onClick("scale", () => set({from: "notes", tune: notes.map(note => note.name), gaps: []}));
  onClick("long", () => set({from: "long", gaps: []}));
  onClick("chop", () => set({gaps: randomGaps()}));
  onClick("whole", () => set({gaps: []}));
  onClick("input-play", event => player.play(shown.input, event.currentTarget));
  onClick("restored-play", event => player.play(shown.restored, event.currentTarget));
  onInput("noise", ({value}) => { state.noise = Number(value); build(); });
  onChange("noise", () => states.save());
  onChange("file", ({files}) => openFile(files[0]));
  onClick("record", () => open("recording", record));
  element("record").hidden = !navigator.mediaDevices?.getUserMedia || !window.MediaRecorder;
  for (const name of ["dragover", "drop"]) addEventListener(name, event => event.preventDefault());
  addEventListener("drop", ({dataTransfer}) => openFile(dataTransfer.files[0]));
  listenToGaps();
}

for (const note of notes ?? []) note.tone = [...floatsOf(bytesOf(note.tone))];
for (const name of ["windows", "long"]) if (data[name]) data[name] = floatsOf(bytesOf(data[name]));
const map = new LatentMap(element("map"), data.map, nameNearest, playNearest);
const states = new StateHistory(describe, restoreState);
if (notes) makeKeyboard();
listen();
redrawnBy(() => ["input", "restored"].forEach(draw), element("input-wave"));
states.start();
