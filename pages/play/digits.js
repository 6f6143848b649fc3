// The page of an image model: the user damages or draws an image, and the network reconstructs it.
const ENLARGED = 16; // canvas pixels per image pixel
const images = Float32Array.from(bytesOf(data.images), level => level / 255);
const small = make("canvas"); // holds an image at its own size, before it is enlarged
// from: "held" (held-out image `number`), "own" (an empty pad) or "new" (a sample from the prior
// with seed `number`). strokes: [{erase, points: [x, y, ...]}] in pad cells. hole: see hole.js.
const state = {from: "held", number: 0, strokes: [], hole: null};
const made = {}; // computed from the state: observed, seen, z, output

function baseImage() {
  const {from, number} = state, size = HEIGHT * WIDTH;
  if (from === "held") return images.subarray(number * size, (number + 1) * size);
  if (from === "own") return new Float32Array(size);
  return decode(network, samplePrior(network, randomBy(number)));
}

/** Compute and show everything that depends on the pad. The worker refines what rests. */
function update() {
  const [x, y, width, height] = state.hole ?? [0, 0, 0, 0];
  const inHole = (column, row) => column >= x && column < x + width && row >= y && row < y + height;
  made.observed = new Float32Array(WIDTH * HEIGHT).map(
    (_, i) => inHole(i % WIDTH, Math.floor(i / WIDTH)) ? 0 : 1);
  made.seen = shrunk().map((value, i) => value * made.observed[i]);
  made.z = encode(network, made.seen);
  made.output = decode(network, made.z);
  show();
  element("refining").classList.add("stale");
  worker.ask({corrupted: made.seen, observed: made.observed}, showRefined);
}

/** Return a canvas with one pixel per level in [0, 1]. It is reused by the next call. */
function smallPicture(values) {
  const pixels = new ImageData(WIDTH, HEIGHT), words = new Uint32Array(pixels.data.buffer);
  values.forEach((value, i) => { words[i] = 0xff000000 | Math.round(255 * value) * 0x010101; });
  Object.assign(small, {width: WIDTH, height: HEIGHT}).getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

/** Show a picture on a canvas. Returns the canvas's 2D context. */
function paint(name, picture) {
  const context = element(name).getContext("2d"), width = ENLARGED * WIDTH;
  Object.assign(context.canvas, {width, height: ENLARGED * HEIGHT});
  Object.assign(context, {imageSmoothingEnabled: false, strokeStyle: "#e66", lineWidth: 4});
  context.drawImage(picture, 0, 0, width, context.canvas.height);
  return context;
}
function paintWithHole(name, values) {
  const context = paint(name, smallPicture(values));
  if (state.hole) context.strokeRect(...state.hole.map(value => ENLARGED * value));
  return context;
}

/** Show results of the worker as they arrive. */
function showRefined({refined, uncertainty, completions = []}) {
  if (refined) {
    paintWithHole("refined", refined);
    paintWithHole("uncertainty", uncertainty.map((std, i) => made.observed[i] ? 0 : std));
  }
  completions.forEach((image, i) => paintWithHole(`completion-${i + 1}`, image));
  element("refining").classList.toggle("stale", !completions.length);
}

const labelOf = n => map.labels ? `, labeled ${map.nameOf(n)}` : "";
function show() {
  const {from, number, hole} = state, held = `Held-out ${data.kind} ${number}${labelOf(number)}`;
  paint("picture", pad.canvas);
  const seen = paintWithHole("seen", made.seen);
  seen.fillStyle = "#d6272866";
  if (hole) seen.fillRect(...hole.map(value => ENLARGED * value));
  paintWithHole("output", made.output);
  map.mark = made.z;
  map.draw();
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
  paint("decoded", smallPicture(decode(network, map.between(place))));
  element("near").textContent = `Decoded at this point. Nearest: no. ${n}${labelOf(n)}`;
}

function describe() {
  const {from, number, strokes, hole} = state, parts = {[from]: number};
  const texts = strokes.map(({erase, points}) => (erase ? "e" : "p") + points.join(","));
  if (strokes.length) parts.strokes = texts.join("_");
  if (hole) parts.hole = hole;
  return parts;
}
function restoreState(text) {
  const from = ["own", "new"].find(name => text.has(name)) ?? "held";
  const number = integerFrom(text.get(from), from === "held" ? map.points.length : 2 ** 32, 0);
  const strokes = (text.get("strokes") ?? "").split("_").filter(
    stroke => /^[ep]\d+,\d+(,\d+,\d+)*$/.test(stroke)).map(
    stroke => ({erase: stroke[0] === "e", points: stroke.slice(1).split(",").map(Number)}));
  const hole = numbersFrom(text.get("hole"));
  Object.assign(state, {from, number, strokes, hole: hole.length === 4 ? holeWithin(hole) : null});
  if (!text.toString()) Object.assign(state, data.start);
  drawPad();
  update();
}
function listen() {
  const begin = (from, number) => set({from, number, strokes: []});
  const random = limit => Math.floor(Math.random() * limit);
  onClick("another", () => begin("held", random(map.points.length)));
  onClick("clear", () => { state.hole = null; begin("own", 0); });
  onClick("new", () => begin("new", random(2 ** 32)));
  onClick("hole", () => set({hole: randomHole()}));
  onClick("whole", () => set({hole: null}));
  listenToPad();
  listenToHole();
}

const map = new LatentMap(element("map"), data.map, previewMap, place => set(
  {from: "held", number: map.nearest(place)[0][1], strokes: [], hole: null}));
const states = new StateHistory(describe, restoreState);
listen();
states.start();
