// The latent map: held-out codes on their two principal axes.

const COLORS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2",
  "#7f7f7f", "#bcbd22", "#17becf"];
const MIXED = 6; // nearest codes that are mixed at a point

/** A map that calls on.hover(place), on.leave(), on.down(place) and on.up(place), with places in
 * units of the axes. */
class LatentMap {
  constructor(canvas, {codes, centre, axes, labels, names}, on) {
    Object.assign(this, {canvas, centre, axes, labels, names, on, cursor: null, mark: null});
    this.size = [1, 1]; // of the canvas, in CSS pixels
    this.codes = floatsOf(bytesOf(codes));
    const count = this.codes.length / network.latent;
    this.points = Array.from({length: count}, (_, n) => this.project(this.code(n)));
    this.limits = [0, 1].map(axis => {
      const values = this.points.map(point => point[axis]);
      return [Math.min(...values), Math.max(...values)];
    });
    this.listen();
    if (labels) this.writeLegend();
    redrawnBy(() => this.drawPoints(), canvas);
  }

  code(n) { return this.codes.subarray(n * network.latent, (n + 1) * network.latent); }

  /** The label of an example; undefined if there are no labels. */
  nameOf(n) { return this.names[this.labels?.[n]]; }

  project(z) {
    const {axes, centre} = this;
    return axes.map(axis => axis.reduce((sum, value, i) => sum + value * (z[i] - centre[i]), 0));
  }

  colorOf(n) {
    const kinds = this.names.length, kind = this.labels?.[n];
    if (kind === undefined) return color("accent");
    return kinds <= COLORS.length ? COLORS[kind] : `hsl(${360 * kind / kinds} 65% 50%)`;
  }

  writeLegend() {
    const keys = this.names.map((name, kind) => {
      const key = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = this.colorOf(this.labels.indexOf(kind));
      key.append(dot, name);
      return key;
    });
    element("legend").replaceChildren(...keys);
  }

  listen() {
    const {canvas, on} = this;
    const pointed = act => event => {
      this.cursor = this.placeAt(...placeOn(canvas, event));
      act(this.cursor);
      this.draw();
    };
    const leave = () => {
      this.cursor = null;
      on.leave();
      this.draw();
    };
    const hover = pointed(on.hover);
    dragged(canvas, {down: pointed(on.down), move: hover, up: pointed(on.up)});
    canvas.addEventListener("pointermove", event => { if (!event.buttons) hover(event); });
    canvas.addEventListener("pointerleave", leave);
    canvas.addEventListener("blur", leave);
    canvas.addEventListener("keydown", event => this.key(event));
  }

  key(event) {
    const step = ARROWS[event.key], {limits, on} = this;
    if (!step && event.key !== "Enter") return;
    event.preventDefault();
    this.cursor ??= limits.map(([low, high]) => (low + high) / 2);
    if (step) {
      const size = (limits[0][1] - limits[0][0]) / 40, [x, y] = this.cursor;
      this.cursor = [x + size * step[0], y - size * step[1]].map((at, i) => clamp(at, ...limits[i]));
      on.hover(this.cursor);
    } else {
      on.down(this.cursor);
      on.up(this.cursor);
    }
    this.draw();
  }

  /** The `count` examples nearest to a place, as [squared distance, number]. */
  nearest([x, y], count = 1) {
    const distances = this.points.map(([a, b], n) => [(a - x) ** 2 + (b - y) ** 2, n]);
    return distances.sort((a, b) => a[0] - b[0]).slice(0, count);
  }

  /** A code at a place: the nearest codes, weighted by inverse squared distance. A point of the
   * plane itself would have no value in the other latent dimensions. */
  between(place) {
    const near = this.nearest(place, MIXED).map(([distance, n]) => [1 / (distance + 1e-6), n]);
    const total = near.reduce((sum, [weight]) => sum + weight, 0);
    return Float32Array.from({length: network.latent}, (_, i) => near.reduce(
      (sum, [weight, n]) => sum + weight / total * this.code(n)[i], 0));
  }

  /** Pixels per unit, the same on both axes, and the place at the center of the canvas. */
  get frame() {
    const edge = 12, units = this.limits.map(
      ([low, high], i) => (this.size[i] - 2 * edge) / Math.max(high - low, 1e-6));
    return {unit: Math.min(...units), middle: this.limits.map(([low, high]) => (low + high) / 2)};
  }

  placeAt(x, y) {
    const {unit, middle} = this.frame, [width, height] = this.size;
    return [middle[0] + (x - 0.5) * width / unit, middle[1] - (y - 0.5) * height / unit];
  }

  pixelOf([x, y]) {
    const {unit, middle} = this.frame, [width, height] = this.size;
    return [width / 2 + unit * (x - middle[0]), height / 2 - unit * (y - middle[1])];
  }

  /** Draw the points and keep their picture: `draw` uses it at every move of the pointer. */
  drawPoints() {
    const {pen, width, height} = fitted(this.canvas);
    this.size = [width, height];
    this.points.forEach((point, n) => {
      pen.fillStyle = this.colorOf(n);
      pen.beginPath();
      pen.arc(...this.pixelOf(point), 2.5, 0, 7);
      pen.fill();
    });
    this.background ??= document.createElement("canvas");
    this.background.width = this.canvas.width;
    this.background.height = this.canvas.height;
    this.background.getContext("2d").drawImage(this.canvas, 0, 0);
    this.draw();
  }

  /** Draw the points, a circle around the mark and a cross at the cursor. */
  draw() {
    if (!this.background) return;
    const pen = this.canvas.getContext("2d"), path = new Path2D();
    pen.clearRect(0, 0, ...this.size);
    pen.drawImage(this.background, 0, 0, ...this.size);
    if (this.mark) path.arc(...this.pixelOf(this.project(this.mark)), 7, 0, 7);
    if (this.cursor) {
      const [x, y] = this.pixelOf(this.cursor);
      path.addPath(new Path2D(`M${x - 9} ${y} h18 M${x} ${y - 9} v18`));
    }
    pen.strokeStyle = color("ink");
    pen.lineWidth = 2;
    pen.stroke(path);
  }
}
