// The pad to draw on. It has FINE x FINE cells per pixel of the network's input.
const [HEIGHT, WIDTH] = data.shape; // of an image, pixels
const FINE = 4, PAD_WIDTH = FINE * WIDTH, PAD_HEIGHT = FINE * HEIGHT;
const PEN = FINE * 1.1, ERASER = FINE * 2.2; // radii, cells
const BOX = 20; // pixels: MNIST's digits fit this square
const pad = make("canvas", {width: PAD_WIDTH, height: PAD_HEIGHT}).getContext(
  "2d", {willReadFrequently: true});

/** Draw the segment of a stroke that ends at points[end]. */
function drawSegment({erase, points}, end) {
  const [x, y] = points.slice(end - 1), [fromX, fromY] = points.slice(Math.max(0, end - 3));
  const lineWidth = 2 * (erase ? ERASER : PEN), strokeStyle = erase ? "#000" : "#fff";
  Object.assign(pad, {lineWidth, strokeStyle, lineCap: "round"});
  pad.beginPath();
  pad.moveTo(fromX, fromY);
  pad.lineTo(x + 0.01, y); // a line without length would not be drawn
  pad.stroke();
}
function drawPad() {
  pad.imageSmoothingEnabled = false;
  pad.drawImage(smallPicture(baseImage()), 0, 0, PAD_WIDTH, PAD_HEIGHT);
  for (const stroke of state.strokes) {
    for (let end = 1; end < stroke.points.length; end += 2) drawSegment(stroke, end);
  }
}

/** Return the number of cells per pixel, and the image's center on the pad. A user's drawing is
 * framed like MNIST's digits: its longer side is BOX pixels, its center of mass in the middle. */
function framing(cells) {
  const columns = new Float64Array(PAD_WIDTH), rows = new Float64Array(PAD_HEIGHT);
  cells.forEach((ink, at) => {
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

/** Return the image on the pad. Each pixel is the mean of FINE x FINE samples of the pad. */
function shrunk() {
  const words = new Uint32Array(pad.getImageData(0, 0, PAD_WIDTH, PAD_HEIGHT).data.buffer);
  const cells = Float32Array.from(words, word => (word & 255) / 255);
  const {size, center} = framing(cells), image = new Float32Array(HEIGHT * WIDTH);
  for (let at = 0; at < cells.length; at++) {
    const column = (at % PAD_WIDTH + 0.5) / FINE, row = (Math.floor(at / PAD_WIDTH) + 0.5) / FINE;
    const x = Math.floor(center[0] + (column - WIDTH / 2) * size);
    const y = Math.floor(center[1] + (row - HEIGHT / 2) * size);
    if (x < 0 || x >= PAD_WIDTH || y < 0 || y >= PAD_HEIGHT) continue;
    image[Math.floor(row) * WIDTH + Math.floor(column)] += cells[y * PAD_WIDTH + x] / FINE ** 2;
  }
  return image;
}
function penTo(x, y) {
  const stroke = state.strokes.at(-1);
  stroke.points.push(Math.round(x * PAD_WIDTH), Math.round(y * PAD_HEIGHT));
  drawSegment(stroke, stroke.points.length - 1);
  update();
}
function penDown(x, y) {
  state.strokes.push({erase: element("erase").checked, points: []});
  penTo(x, y);
}
const listenToPad = () => dragged(
  element("picture"), {down: penDown, move: penTo, up: () => states.save()});
