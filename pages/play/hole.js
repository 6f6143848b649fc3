// The hole in the image: [x, y, width, height] in pixels.

const holder = {drag: null}; // from a pointer's position, the hole being dragged

/** Round a hole and keep it within the image. */
function holeWithin([x, y, width, height]) {
  const columns = clamp(Math.round(width), 1, WIDTH), rows = clamp(Math.round(height), 1, HEIGHT);
  const left = clamp(Math.round(x), 0, WIDTH - columns);
  return [left, clamp(Math.round(y), 0, HEIGHT - rows), columns, rows];
}

function randomHole() {
  const ratio = 2 ** (Math.random() - 0.5);
  const width = Math.sqrt(MISSING) * WIDTH * ratio, height = Math.sqrt(MISSING) * HEIGHT / ratio;
  const left = Math.random() * (WIDTH - width), top = Math.random() * (HEIGHT - height);
  return holeWithin([left, top, width, height]);
}

/** A pointer pressed at x, y moves the hole, resizes it at its corner, or starts a new one. */
function dragFrom(x, y) {
  const [left, top, width, height] = state.hole ?? [-Infinity, -Infinity, 0, 0];
  const right = left + width, bottom = top + height;
  const slack = Math.max(1.5, WIDTH / 14); // pixels: fingers are less precise than a mouse
  if (Math.abs(x - right) < slack && Math.abs(y - bottom) < slack) {
    return (toX, toY) => [left, top, toX - left, toY - top];
  }
  if (x >= left && x < right && y >= top && y < bottom) {
    return (toX, toY) => [left + toX - x, top + toY - y, width, height];
  }
  const span = (from, to) => [Math.min(from, to), Math.abs(to - from)];
  return (toX, toY) => {
    const [column, columns] = span(Math.round(x), toX), [row, rows] = span(Math.round(y), toY);
    return [column, row, columns, rows];
  };
}

/** Arrow keys move the hole, with Shift they resize it; Delete removes it. */
function holeByKey(event) {
  const [right, down] = ARROWS[event.key] ?? [0, 0];
  if (!ARROWS[event.key] && event.key !== "Delete") return;
  event.preventDefault();
  const [x, y, width, height] = state.hole ?? randomHole();
  const resized = [x, y, width + right, height + down], moved = [x + right, y + down, width, height];
  if (event.key === "Delete") set({hole: null});
  else set({hole: holeWithin(event.shiftKey ? resized : moved), z: null});
}

function listenToHole() {
  const canvas = element("seen");
  const pixelAt = event => {
    const [x, y] = placeOn(canvas, event);
    return [clamp(x, 0, 1) * WIDTH, clamp(y, 0, 1) * HEIGHT];
  };
  dragged(canvas, {
    down: event => { holder.drag = dragFrom(...pixelAt(event)); },
    move: event => {
      Object.assign(state, {hole: holeWithin(holder.drag(...pixelAt(event))), z: null});
      update();
    },
    up: () => states.save(),
  });
  canvas.addEventListener("keydown", holeByKey);
}
