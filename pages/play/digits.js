// The page of a model of images: a picture is damaged and drawn again by the network.

const [HEIGHT, WIDTH] = data.shape, FINE = 4; // the pad has FINE x FINE places for each pixel
const PEN = 1.1, ERASER = 2.2, BOX = 20; // pixels: their radii; what MNIST's digits were scaled to
const MISSING = 0.2; // of the image, by a hole at random
const images = Float32Array.from(bytesOf(data.images), level => level / 255);
const shades = document.createElement("canvas"); // an image in its own size, before it is enlarged

// from: "held" and a number, "own" from an empty pad, "new" and the seed of a draw from the prior. strokes: {erase,
// points: [x, y, ...]} in places of the pad. hole: [x, y, width, height] in pixels. z: set where it was pulled.
const state = {from: "held", number: 0, strokes: [], hole: null, z: null};
const made = {}; // from the state: pad, seen, z, output

const imageOf = n => images.subarray(n * HEIGHT * WIDTH, (n + 1) * HEIGHT * WIDTH);

function baseImage() {
  if (state.from === "held") return imageOf(state.number);
  if (state.from === "own") return new Float32Array(HEIGHT * WIDTH);
  return decode(network, samplePrior(network, randomBy(state.number)));
}

/** A round brush on the pad, soft at its edge. */
function stamp(x, y, erase) {
  const radius = FINE * (erase ? ERASER : PEN), width = FINE * WIDTH, height = FINE * HEIGHT;
  for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(height - 1, y + radius); row++) {
    for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(width - 1, x + radius); column++) {
      const cover = clamp(radius - Math.hypot(column + 0.5 - x, row + 0.5 - y), 0, 1), at = row * width + column;
      made.pad[at] = erase ? Math.min(made.pad[at], 1 - cover) : Math.max(made.pad[at], cover);
    }
  }
}

/** From the point before the last of a stroke to its last. */
function stampLast({erase, points}) {
  const [x, y] = points.slice(-2), [fromX, fromY] = points.length > 2 ? points.slice(-4, -2) : [x, y];
  const steps = Math.max(1, Math.ceil(Math.hypot(x - fromX, y - fromY)));
  for (let i = 1; i <= steps; i++) stamp(fromX + (x - fromX) * i / steps, fromY + (y - fromY) * i / steps, erase);
}

function drawPad() {
  const base = baseImage();
  made.pad = new Float32Array(FINE * FINE * HEIGHT * WIDTH);
  for (let at = 0; at < made.pad.length; at++) {
    const row = Math.floor(at / FINE / WIDTH / FINE), column = Math.floor(at % (FINE * WIDTH) / FINE);
    made.pad[at] = base[row * WIDTH + column];
  }
  for (const {erase, points} of state.strokes) {
    for (let end = 2; end <= points.length; end += 2) stampLast({erase, points: points.slice(0, end)});
  }
}

/** Where MNIST's makers would have put an own drawing: how large a pixel is on the pad, and which place of it comes to
 * the middle. Its longer side is BOX pixels, its centre of mass in the middle. */
function framing() {
  const {pad} = made, width = FINE * WIDTH, sums = {mass: 0, x: 0, y: 0};
  let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
  pad.forEach((ink, at) => {
    if (!ink) return;
    const x = at % width, y = Math.floor(at / width);
    sums.mass += ink, sums.x += ink * (x + 0.5), sums.y += ink * (y + 0.5);
    left = Math.min(left, x), right = Math.max(right, x + 1), top = Math.min(top, y), bottom = Math.max(bottom, y + 1);
  });
  if (state.from !== "own" || !data.centred || !sums.mass) return {size: FINE, middle: [width / 2, FINE * HEIGHT / 2]};
  return {size: Math.max(right - left, bottom - top) / BOX, middle: [sums.x / sums.mass, sums.y / sums.mass]};
}

/** The pad in the network's pixels, each the mean of FINE x FINE places in it. */
function shrunk() {
  const {size, middle} = framing(), seen = new Float32Array(HEIGHT * WIDTH);
  const place = (pixel, part, side, i) => Math.floor(middle[i] + (pixel - side / 2 + (part + 0.5) / FINE) * size);
  for (let at = 0; at < seen.length * FINE * FINE; at++) {
    const part = at % (FINE * FINE), pixel = (at - part) / FINE / FINE;
    const x = place(pixel % WIDTH, part % FINE, WIDTH, 0);
    const y = place(Math.floor(pixel / WIDTH), Math.floor(part / FINE), HEIGHT, 1);
    if (x < 0 || x >= FINE * WIDTH || y < 0 || y >= FINE * HEIGHT) continue;
    seen[pixel] += made.pad[y * FINE * WIDTH + x] / FINE / FINE;
  }
  return seen;
}

function damage(seen) {
  const [x, y, width, height] = state.hole ?? [0, 0, 0, 0];
  for (let row = y; row < y + height; row++) seen.fill(0, row * WIDTH + x, row * WIDTH + x + width);
}

/** From the pad to what is shown: at every move of the pen. */
function update() {
  const begun = performance.now();
  made.seen = shrunk();
  damage(made.seen);
  made.z = state.z ?? encode(network, made.seen);
  made.output = decode(network, made.z);
  show();
  made.milliseconds = performance.now() - begun;
}

function paint(canvas, values, width, height) {
  [shades.width, shades.height] = [width, height];
  const pixels = new ImageData(width, height), words = new Uint32Array(pixels.data.buffer);
  const pen = canvas.getContext("2d");
  values.forEach((value, i) => { words[i] = 0xff000000 | Math.round(255 * value) * 0x010101; });
  shades.getContext("2d").putImageData(pixels, 0, 0);
  [canvas.width, canvas.height] = [16 * WIDTH, 16 * HEIGHT];
  pen.imageSmoothingEnabled = false;
  pen.drawImage(shades, 0, 0, canvas.width, canvas.height);
  return pen;
}

function show() {
  const pen = paint(element("picture"), made.pad, FINE * WIDTH, FINE * HEIGHT);
  if (pad.cursor) {
    pen.strokeStyle = "#e66", pen.lineWidth = pad.down ? 8 : 3, pen.beginPath();
    pen.arc(...pad.cursor.map(place => 16 / FINE * place), 16 * (erasing() ? ERASER : PEN), 0, 7), pen.stroke();
  }
  const over = paint(element("seen"), made.seen, WIDTH, HEIGHT);
  if (state.hole) {
    const [x, y, width, height] = state.hole.map(value => 16 * value);
    over.fillStyle = "#d6272866", over.strokeStyle = "#e66", over.lineWidth = 4;
    over.fillRect(x, y, width, height), over.strokeRect(x, y, width, height);
    over.fillStyle = "#e66", over.fillRect(x + width - 20, y + height - 20, 20, 20);
  }
  paint(element("output"), made.output, WIDTH, HEIGHT);
  bars.forEach((bar, i) => { if (bar !== document.activeElement || !state.z) bar.value = made.z[i]; });
  map.mark = made.z, map.draw();
  element("own-z").hidden = !state.z;
  const held = `Held-out ${data.kind} ${state.number}`;
  const from = {held, own: "A drawing of your own", new: "New, from the prior"};
  const label = state.from === "held" && map.labels ? `, labelled ${map.nameOf(state.number)}` : "";
  element("from").textContent = `${from[state.from]}${label}`;
}

/** Another state, or parts of it. */
function set(change) {
  Object.assign(state, change);
  drawPad();
  update();
  remembered.changed();
}

const begin = (from, number = 0) => set({from, number, strokes: [], z: null});
const erasing = () => element("erase").checked;

// ---- the pad

const pad = {cursor: null, down: false, stroke: null};

function penTo(x, y) {
  if (!pad.stroke) state.strokes.push(pad.stroke = {erase: erasing(), points: []});
  pad.stroke.points.push(Math.round(x), Math.round(y));
  state.z = null;
  stampLast(pad.stroke);
  update();
}

function penUp() {
  pad.stroke = null;
  remembered.changed();
}

function drawByPointer(what, event) {
  const [x, y] = placeOn(element("picture"), event);
  pad.cursor = null, pad.down = false;
  if (what === "up") penUp();
  else penTo(x * FINE * WIDTH, y * FINE * HEIGHT);
}

function drawByKey(event) {
  const step = ARROWS[event.key];
  if (!step && event.key !== " " && event.key !== "e") return;
  event.preventDefault();
  if (event.key === "e") element(erasing() ? "draw" : "erase").checked = true;
  pad.cursor ??= [FINE * WIDTH / 2, FINE * HEIGHT / 2];
  if (step) pad.cursor = pad.cursor.map((at, i) => clamp(at + FINE * step[i], 0, FINE * [WIDTH, HEIGHT][i]));
  else pad.down = event.key === " " && !pad.down;
  if (pad.down) penTo(...pad.cursor);
  else penUp(), show();
}

// ---- the hole

function holeWithin([x, y, width, height]) {
  [width, height] = [clamp(Math.round(width), 1, WIDTH), clamp(Math.round(height), 1, HEIGHT)];
  return [clamp(Math.round(x), 0, WIDTH - width), clamp(Math.round(y), 0, HEIGHT - height), width, height];
}

function randomHole() {
  const sides = [WIDTH, HEIGHT].map(side => Math.sqrt(MISSING) * side), ratio = 2 ** (Math.random() - 0.5);
  const size = [sides[0] * ratio, sides[1] / ratio];
  return holeWithin([Math.random() * (WIDTH - size[0]), Math.random() * (HEIGHT - size[1]), ...size]);
}

/** What a pointer that is pressed at a place does to the hole: moves it, resizes it, or begins another. */
function grip(x, y) {
  const [left, top, width, height] = state.hole ?? [0, 0, 0, 0], right = left + width, bottom = top + height;
  const slack = Math.max(1.5, WIDTH / 14); // pixels: a finger is not a mouse
  if (state.hole && Math.abs(x - right) < slack && Math.abs(y - bottom) < slack) {
    return (nowX, nowY) => [left, top, Math.min(nowX, WIDTH) - left, Math.min(nowY, HEIGHT) - top];
  }
  if (state.hole && x >= left && x < right && y >= top && y < bottom) {
    return (nowX, nowY) => [left + nowX - x, top + nowY - y, width, height];
  }
  const [atX, atY] = [Math.round(x), Math.round(y)];
  return (nowX, nowY) => [Math.min(atX, nowX), Math.min(atY, nowY), Math.abs(nowX - atX), Math.abs(nowY - atY)];
}

function holeByPointer(what, event) {
  const [x, y] = placeOn(element("seen"), event).map((share, i) => share * [WIDTH, HEIGHT][i]);
  if (what === "down") holeByPointer.grip = grip(x, y);
  else if (what === "up") remembered.changed();
  else state.hole = holeWithin(holeByPointer.grip(clamp(x, 0, WIDTH), clamp(y, 0, HEIGHT))), state.z = null, update();
}

function holeByKey(event) {
  const step = ARROWS[event.key], {hole} = state;
  if (!step && event.key !== "Delete") return;
  event.preventDefault();
  if (!step) return set({hole: null});
  const [x, y, width, height] = hole ?? randomHole();
  const other = event.shiftKey ? [x, y, width + step[0], height + step[1]] : [x + step[0], y + step[1], width, height];
  set({hole: holeWithin(hole ? other : [x, y, width, height]), z: null});
}

// ---- latent numbers, map, blend

function makeBars() {
  const most = Math.ceil(map.codes.reduce((high, value) => Math.max(high, Math.abs(value)), 1));
  return Array.from({length: network.latent}, (_, i) => {
    const bar = Object.assign(document.createElement("input"), {type: "range", min: -most, max: most, step: "any"});
    bar.ariaLabel = `latent number ${i + 1}`;
    bar.addEventListener("input", () => {
      state.z = Float32Array.from(made.z);
      state.z[i] = Number(bar.value);
      update();
    });
    bar.addEventListener("change", () => remembered.changed());
    return bar;
  });
}

function previewMap(place) {
  const [[, n]] = map.nearest(place), label = map.labels ? `, labelled ${map.nameOf(n)}` : "";
  element("lies").hidden = false;
  paint(element("lies"), decode(network, map.between(place)), WIDTH, HEIGHT);
  element("near").textContent = `Drawn from what lies there; nearest: no. ${n}${label}`;
}

function blend() {
  const [a, b] = ["blend-a", "blend-b"].map(id => wholeFrom(element(id).value, map.points.length, 0));
  const share = Number(element("share").value), [from, to] = [map.code(a), map.code(b)];
  state.z = from.map((value, i) => (1 - share) * value + share * to[i]);
  update();
}

// ---- state as text, and the page's beginning

function describe() {
  const strokes = state.strokes.map(({erase, points}) => (erase ? "e" : "p") + points.join(",")).join("_");
  return {
    [state.from]: state.number, ...(strokes && {strokes}), ...(state.hole && {hole: state.hole}),
    ...(state.z && {z: Array.from(state.z, value => value.toFixed(3))}),
  };
}

function restoreState(text) {
  const from = ["own", "new"].find(name => text.has(name)) ?? "held";
  const strokes = (text.get("strokes") ?? "").split("_").filter(stroke => /^[ep]\d+,\d+(,\d+,\d+)*$/.test(stroke));
  const hole = numbersFrom(text.get("hole"), 4), z = numbersFrom(text.get("z"), network.latent);
  Object.assign(state, {
    from, number: wholeFrom(text.get(from), from === "held" ? map.points.length : 2 ** 32, 0),
    strokes: strokes.map(stroke => ({erase: stroke[0] === "e", points: stroke.slice(1).split(",").map(Number)})),
    hole: hole && holeWithin(hole), z: z && Float32Array.from(z),
  });
  drawPad();
  update();
}

function listen() {
  const on = (id, act) => element(id).addEventListener("click", act), any = below => Math.floor(Math.random() * below);
  on("another", () => begin("held", any(map.points.length)));
  on("clear", () => begin("own"));
  on("new", () => begin("new", any(2 ** 32)));
  on("hole", () => set({hole: randomHole(), z: null}));
  on("whole", () => set({hole: null, z: null}));
  on("own-z", () => set({z: null}));
  dragged(element("picture"), drawByPointer);
  element("picture").addEventListener("keydown", drawByKey);
  element("picture").addEventListener("blur", () => { pad.cursor = null, pad.down = false, penUp(), show(); });
  dragged(element("seen"), holeByPointer);
  element("seen").addEventListener("keydown", holeByKey);
  ["blend-a", "blend-b", "share"].forEach(id => {
    element(id).addEventListener("input", blend);
    element(id).addEventListener("change", () => remembered.changed());
  });
}

const map = new LatentMap(element("map"), data.map, {
  hover: previewMap, down: previewMap, leave: () => { element("near").textContent = ""; },
  up: place => set({from: "held", number: map.nearest(place)[0][1], strokes: [], hole: null, z: null}),
});
const bars = makeBars();
element("bars").append(...bars);
["blend-a", "blend-b"].forEach((id, i) => {
  const max = map.points.length - 1;
  Object.assign(element(id), {max, value: Math.min([3, 17][i], max)});
});
const remembered = new Remembered(describe, restoreState);
listen();
remembered.start();
