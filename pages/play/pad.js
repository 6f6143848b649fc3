// The pad to draw on. It has FINE x FINE cells per pixel of the network's input.
const [HEIGHT, WIDTH] = data.shape; // of an image, pixels
const FINE = 4, PAD_WIDTH = FINE * WIDTH, PAD_HEIGHT = FINE * HEIGHT;
const PEN = FINE * 1.1, ERASER = FINE * 2.2; // radii, cells
const BOX = 20; // pixels: MNIST's digits fit this square
// cursor: position of the keyboard's pen. down: true while it draws. stroke: the current stroke.
const pen = {cursor: null, down: false, stroke: null};
const erasing = () => element("erase").checked;

/** Press a round brush with a soft edge on the pad. */
function stamp(x, y, erase) {
  const {pad} = made, radius = erase ? ERASER : PEN;
  const first = at => Math.max(0, Math.floor(at - radius));
  for (let row = first(y); row <= Math.min(PAD_HEIGHT - 1, y + radius); row++) {
    for (let column = first(x); column <= Math.min(PAD_WIDTH - 1, x + radius); column++) {
      const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y), at = row * PAD_WIDTH + column;
      const ink = clamp(radius - distance, 0, 1);
      pad[at] = erase ? Math.min(pad[at], 1 - ink) : Math.max(pad[at], ink);
    }
  }
}

/** Draw the segment of a stroke that ends at points[end]. */
function stampSegment({erase, points}, end) {
  const [x, y] = points.slice(end - 1), [fromX, fromY] = points.slice(Math.max(0, end - 3));
  const steps = Math.max(1, Math.ceil(Math.hypot(x - fromX, y - fromY)));
  for (let i = 1; i <= steps; i++) {
    stamp(fromX + (x - fromX) * i / steps, fromY + (y - fromY) * i / steps, erase);
  }
}
function drawPad() {
  const base = baseImage();
  made.pad = new Float32Array(PAD_WIDTH * PAD_HEIGHT).map((_, at) => {
    const row = Math.floor(at / PAD_WIDTH / FINE), column = Math.floor(at % PAD_WIDTH / FINE);
    return base[row * WIDTH + column];
  });
  for (const stroke of state.strokes) {
    for (let end = 1; end < stroke.points.length; end += 2) stampSegment(stroke, end);
  }
}

/** Return the number of cells per pixel, and the image's center on the pad. A user's drawing is
 * framed like MNIST's digits: its longer side is BOX pixels, its center of mass in the middle. */
function framing() {
  const columns = new Float64Array(PAD_WIDTH), rows = new Float64Array(PAD_HEIGHT);
  made.pad.forEach((ink, at) => {
    columns[at % PAD_WIDTH] += ink;
    rows[Math.floor(at / PAD_WIDTH)] += ink;
  });
  const mass = rows.reduce((a, b) => a + b), framed = state.from === "own" && data.centered && mass;
  if (!framed) return {size: FINE, center: [PAD_WIDTH / 2, PAD_HEIGHT / 2]};
  const span = sums => sums.findLastIndex(Boolean) - sums.findIndex(Boolean) + 1;
  const middle = sums => sums.reduce((total, sum, i) => total + sum * (i + 0.5), 0) / mass;
  const size = Math.max(span(columns), span(rows)) / BOX;
  return {size, center: [middle(columns), middle(rows)]};
}

/** Return the network's input. Each pixel is the mean of FINE x FINE samples of the pad. */
function shrunk() {
  const {size, center} = framing(), image = new Float32Array(HEIGHT * WIDTH);
  for (let at = 0; at < made.pad.length; at++) {
    const column = (at % PAD_WIDTH + 0.5) / FINE, row = (Math.floor(at / PAD_WIDTH) + 0.5) / FINE;
    const x = Math.floor(center[0] + (column - WIDTH / 2) * size);
    const y = Math.floor(center[1] + (row - HEIGHT / 2) * size);
    if (x < 0 || x >= PAD_WIDTH || y < 0 || y >= PAD_HEIGHT) continue;
    image[Math.floor(row) * WIDTH + Math.floor(column)] += made.pad[y * PAD_WIDTH + x] / FINE ** 2;
  }
  return image;
}
function penTo(x, y) {
  if (!pen.stroke) {
    pen.stroke = {erase: erasing(), points: []};
    state.strokes.push(pen.stroke);
  }
  pen.stroke.points.push(Math.round(x), Math.round(y));
  state.z = null;
  stampSegment(pen.stroke, pen.stroke.points.length - 1);
  update();
}
function penUp() {
  pen.stroke = null;
  states.save();
  show();
}

/** Arrow keys move the pen, Space lowers or lifts it, e switches between pen and eraser. */
function drawByKey(key, [right, down]) {
  if (key === "e") element(erasing() ? "draw" : "erase").checked = true;
  const [x, y] = pen.cursor ?? [PAD_WIDTH / 2, PAD_HEIGHT / 2];
  pen.cursor = [clamp(x + FINE * right, 0, PAD_WIDTH), clamp(y + FINE * down, 0, PAD_HEIGHT)];
  if (!right && !down) pen.down = key === " " && !pen.down;
  if (pen.down) penTo(...pen.cursor);
  else penUp();
}
function listenToPad() {
  const canvas = element("picture"), hide = () => Object.assign(pen, {cursor: null, down: false});
  const draw = (x, y) => penTo(x * PAD_WIDTH, y * PAD_HEIGHT);
  canvas.addEventListener("pointerdown", hide);
  dragged(canvas, {down: draw, move: draw, up: penUp});
  onKeys(canvas, [" ", "e"], drawByKey);
  canvas.addEventListener("blur", () => { hide(); penUp(); });
}
