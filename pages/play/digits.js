// The page of an image model: the user damages or draws an image, and the network reconstructs it.
const ENLARGED = 16; // canvas pixels per image pixel
const images = Float32Array.from(bytesOf(data.images), level => level / 255);
const small = make("canvas"); // holds an image at its own size, before it is enlarged
// from: "held" (held-out image `number`), "own" (an empty pad) or "new" (a sample from the prior
// with seed `number`). strokes: [{erase, points: [x, y, ...]}] in pad cells. hole: see hole.js.
// z: the latent code that the user chose, or null to use the encoder's code.
const state = {from: "held", number: 0, strokes: [], hole: null, z: null};
const made = {}; // computed from the state: pad, seen, z, output

function baseImage() {
  const {from, number} = state, size = HEIGHT * WIDTH;
  if (from === "held") return images.subarray(number * size, (number + 1) * size);
  if (from === "own") return new Float32Array(size);
  return decode(network, samplePrior(network, randomBy(number)));
}

/** Compute and show everything that depends on the pad. */
function update() {
  const [x, y, width, height] = state.hole ?? [0, 0, 0, 0];
  made.seen = shrunk();
  for (let row = y; row < y + height; row++) {
    made.seen.fill(0, row * WIDTH + x, row * WIDTH + x + width);
  }
  made.z = state.z ?? encode(network, made.seen);
  made.output = decode(network, made.z);
  show();
}

/** Show levels in [0, 1] on a canvas. Returns its 2D context. */
function paint(canvas, values, width, height) {
  const pixels = new ImageData(width, height), words = new Uint32Array(pixels.data.buffer);
  values.forEach((value, i) => { words[i] = 0xff000000 | Math.round(255 * value) * 0x010101; });
  Object.assign(small, {width, height}).getContext("2d").putImageData(pixels, 0, 0);
  Object.assign(canvas, {width: ENLARGED * WIDTH, height: ENLARGED * HEIGHT});
  const context = canvas.getContext("2d");
  Object.assign(context, {imageSmoothingEnabled: false, strokeStyle: "#e66", lineWidth: 4});
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  return context;
}

/** Show the pad with the keyboard's pen, and the network's input with its hole. */
function showInput() {
  const picture = paint(element("picture"), made.pad, PAD_WIDTH, PAD_HEIGHT);
  const seen = paint(element("seen"), made.seen, WIDTH, HEIGHT);
  if (pen.cursor) {
    const [x, y] = pen.cursor, scale = ENLARGED / FINE;
    picture.lineWidth = pen.down ? 8 : 3;
    picture.beginPath();
    picture.arc(scale * x, scale * y, scale * (erasing() ? ERASER : PEN), 0, 7);
    picture.stroke();
  }
  if (state.hole) {
    const [x, y, width, height] = state.hole.map(value => ENLARGED * value);
    seen.fillStyle = "#d6272866";
    seen.fillRect(x, y, width, height);
    seen.strokeRect(x, y, width, height);
    seen.fillStyle = "#e66";
    seen.fillRect(x + width - 20, y + height - 20, 20, 20);
  }
}
const labelOf = n => map.labels ? `, labeled ${map.nameOf(n)}` : "";
function show() {
  const {from, number, z} = state, held = `Held-out ${data.kind} ${number}${labelOf(number)}`;
  showInput();
  paint(element("output"), made.output, WIDTH, HEIGHT);
  bars.forEach((bar, i) => { if (bar !== document.activeElement || !z) bar.value = made.z[i]; });
  map.mark = made.z;
  map.draw();
  element("own-z").hidden = !z;
  element("from").textContent = {held, own: "Your drawing", new: "New sample from the prior"}[from];
}

function set(change) {
  Object.assign(state, change);
  drawPad();
  update();
  states.save();
}

/** Show the image decoded at a place on the map. */
function previewMap(place) {
  const [[, n]] = map.nearest(place);
  element("decoded").hidden = false;
  paint(element("decoded"), decode(network, map.between(place)), WIDTH, HEIGHT);
  element("near").textContent = `Decoded at this point. Nearest: no. ${n}${labelOf(n)}`;
}
function interpolate() {
  const codeOf = id => map.code(integerFrom(element(id).value, map.points.length, 0));
  const weight = Number(element("weight").value);
  state.z = meanCode([codeOf("blend-a"), codeOf("blend-b")], [1 - weight, weight]);
  update();
}

function describe() {
  const {from, number, strokes, hole, z} = state, parts = {[from]: number};
  const texts = strokes.map(({erase, points}) => (erase ? "e" : "p") + points.join(","));
  if (strokes.length) parts.strokes = texts.join("_");
  if (hole) parts.hole = hole;
  if (z) parts.z = Array.from(z, value => value.toFixed(3));
  return parts;
}
function restoreState(text) {
  const from = ["own", "new"].find(name => text.has(name)) ?? "held";
  const number = integerFrom(text.get(from), from === "held" ? map.points.length : 2 ** 32, 0);
  const strokes = (text.get("strokes") ?? "").split("_").filter(
    stroke => /^[ep]\d+,\d+(,\d+,\d+)*$/.test(stroke)).map(
    stroke => ({erase: stroke[0] === "e", points: stroke.slice(1).split(",").map(Number)}));
  const hole = numbersFrom(text.get("hole")), z = numbersFrom(text.get("z"));
  Object.assign(state, {from, number, strokes, hole: hole.length === 4 ? holeWithin(hole) : null});
  state.z = z.length === network.latent ? Float32Array.from(z) : null;
  drawPad();
  update();
}
function listen() {
  const begin = (from, number) => set({from, number, strokes: [], z: null});
  const random = limit => Math.floor(Math.random() * limit);
  onClick("another", () => begin("held", random(map.points.length)));
  onClick("clear", () => begin("own", 0));
  onClick("new", () => begin("new", random(2 ** 32)));
  onClick("hole", () => set({hole: randomHole(), z: null}));
  onClick("whole", () => set({hole: null, z: null}));
  onClick("own-z", () => set({z: null}));
  onInput("bars", bar => {
    state.z = made.z.map((value, i) => bars[i] === bar ? Number(bar.value) : value);
    update();
  });
  ["blend-a", "blend-b", "weight"].forEach(id => onInput(id, interpolate));
  ["blend-a", "blend-b", "weight", "bars"].forEach(id => onChange(id, () => states.save()));
  listenToPad();
  listenToHole();
}

const map = new LatentMap(element("map"), data.map, {
  hover: previewMap, down: previewMap,
  up: place => set(
    {from: "held", number: map.nearest(place)[0][1], strokes: [], hole: null, z: null}),
});
const states = new StateHistory(describe, restoreState);
const max = Math.ceil(map.codes.reduce((high, value) => Math.max(high, Math.abs(value)), 1));
const bars = Array.from({length: network.latent}, (_, i) => make(
  "input", {type: "range", min: -max, max, step: "any", ariaLabel: `latent dimension ${i + 1}`}));
element("bars").append(...bars);
const last = map.points.length - 1;
Object.assign(element("blend-a"), {max: last, value: Math.min(3, last)});
Object.assign(element("blend-b"), {max: last, value: Math.min(17, last)});
listen();
states.start();
