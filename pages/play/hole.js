// The hole in the image: [x, y, width, height] in pixels.
function holeWithin([x, y, width, height]) {
  const columns = clamp(Math.round(width), 1, WIDTH), rows = clamp(Math.round(height), 1, HEIGHT);
  const left = clamp(Math.round(x), 0, WIDTH - columns);
  return [left, clamp(Math.round(y), 0, HEIGHT - rows), columns, rows];
}
function randomHole() {
  const ratio = 2 ** (Math.random() - 0.5), side = Math.sqrt(data.constants.hidden);
  const width = side * WIDTH * ratio, height = side * HEIGHT / ratio;
  const left = Math.random() * (WIDTH - width), top = Math.random() * (HEIGHT - height);
  return holeWithin([left, top, width, height]);
}

/** Start a drag at (x, y): move the hole from inside it, or start a new one elsewhere. Returns a
 * function that maps the pointer's position to the hole. */
function dragFrom(x, y) {
  const [left, top, width, height] = state.hole ?? [-1, -1, 0, 0];
  if (x >= left && x < left + width && y >= top && y < top + height) {
    return (toX, toY) => [left + toX - x, top + toY - y, width, height];
  }
  const fromX = Math.round(x), fromY = Math.round(y);
  return (toX, toY) => [
    Math.min(fromX, toX), Math.min(fromY, toY), Math.abs(toX - fromX), Math.abs(toY - fromY)];
}

/** Arrow keys move the hole or, with Shift, resize it. Delete removes it. */
function holeByKey(key, [right, down], shift) {
  const [x, y, width, height] = state.hole ?? randomHole();
  const moved = [x + right, y + down, width, height];
  const resized = [x, y, width + right, height + down];
  if (key === "Delete") set({hole: null});
  else set({hole: holeWithin(shift ? resized : moved)});
}
function listenToHole() {
  const pixel = (x, y) => [clamp(x, 0, 1) * WIDTH, clamp(y, 0, 1) * HEIGHT];
  let holeAt = null;
  dragged(element("seen"), {
    down: (x, y) => { holeAt = dragFrom(...pixel(x, y)); },
    move: (x, y) => { state.hole = holeWithin(holeAt(...pixel(x, y))); update(); },
    up: () => states.save(),
  });
  onKeys(element("seen"), ["Delete"], holeByKey);
}
