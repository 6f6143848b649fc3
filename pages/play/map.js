// The latent map: held-out codes projected on their first two principal axes.
const COLORS = "1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf".split(" ");
const MIXED = 6; // nearest codes that are mixed at a point
const EDGE = 12; // margin around the points, CSS pixels

/** Map that calls on.hover, on.down and on.up with a place, which is [x, y] on the axes. */
class LatentMap {
  constructor(canvas, {codes, center, axes, labels, names}, on) {
    Object.assign(this, {canvas, center, axes, labels, names, on, cursor: null, mark: null});
    this.size = [1, 1]; // of the canvas, in CSS pixels
    this.codes = floatsOf(bytesOf(codes));
    const count = this.codes.length / network.latent;
    this.points = Array.from({length: count}, (_, n) => this.project(this.code(n)));
    const sides = [0, 1].map(axis => this.points.map(point => point[axis]));
    this.limits = sides.map(values => [Math.min(...values), Math.max(...values)]);
    this.middle = this.limits.map(([low, high]) => (low + high) / 2);
    if (labels) names.forEach((name, kind) => this.writeKey(name, labels.indexOf(kind)));
    this.listen();
    redrawnBy(() => this.draw(), canvas);
  }
  code(n) { return this.codes.subarray(n * network.latent, (n + 1) * network.latent); }
  /** Return the label of example n, or undefined if there are no labels. */
  nameOf(n) { return this.names[this.labels?.[n]]; }
  project(z) {
    const {axes, center} = this;
    return axes.map(axis => axis.reduce((sum, value, i) => sum + value * (z[i] - center[i]), 0));
  }
  colorOf(n) {
    const kinds = this.names.length, kind = this.labels?.[n];
    if (kind === undefined) return color("accent");
    return kinds <= COLORS.length ? `#${COLORS[kind]}` : `hsl(${360 * kind / kinds} 65% 50%)`;
  }
  writeKey(name, n) {
    const key = make("span"), dot = make("i");
    dot.style.background = this.colorOf(n);
    key.append(dot, name);
    element("legend").append(key);
  }
  listen() {
    const {canvas, on, limits} = this;
    const move = (cursor, act) => {
      this.cursor = cursor;
      act(cursor);
      this.draw();
    };
    const leave = () => move(null, () => { element("near").textContent = ""; });
    const pointed = act => (x, y) => move(this.placeAt(x, y), act), hover = pointed(on.hover);
    dragged(canvas, {down: pointed(on.down), move: () => {}, up: pointed(on.up)});
    canvas.addEventListener("pointermove", event => hover(...placeOn(canvas, event)));
    for (const name of ["pointerleave", "blur"]) canvas.addEventListener(name, leave);
    onKeys(canvas, ["Enter"], (key, [right, down]) => {
      const [x, y] = this.cursor ?? this.middle, step = (limits[0][1] - limits[0][0]) / 40;
      const to = [clamp(x + step * right, ...limits[0]), clamp(y - step * down, ...limits[1])];
      const acts = key === "Enter" ? [on.down, on.up] : [on.hover];
      acts.forEach(act => move(to, act));
    });
  }
  /** Return the `count` examples nearest to a place, as pairs [squared distance, example]. */
  nearest([x, y], count = 1) {
    const distances = this.points.map(([a, b], n) => [(a - x) ** 2 + (b - y) ** 2, n]);
    return distances.sort((a, b) => a[0] - b[0]).slice(0, count);
  }
  /** Return the mean of the codes nearest to a place, weighted by inverse squared distance. */
  between(place) {
    const near = this.nearest(place, MIXED), codes = near.map(([, n]) => this.code(n));
    return meanCode(codes, near.map(([distance]) => 1 / (distance + 1e-6)));
  }
  /** Number of CSS pixels per unit of the axes. */
  get scale() {
    return Math.min(...this.limits.map(
      ([low, high], i) => (this.size[i] - 2 * EDGE) / Math.max(high - low, 1e-6)));
  }
  placeAt(x, y) {
    const {scale, middle, size} = this;
    return [middle[0] + (x - 0.5) * size[0] / scale, middle[1] - (y - 0.5) * size[1] / scale];
  }
  pixelOf([x, y]) {
    const {scale, middle, size} = this;
    return [size[0] / 2 + scale * (x - middle[0]), size[1] / 2 - scale * (y - middle[1])];
  }
  /** Draw the points, a circle around the mark and a cross at the cursor. */
  draw() {
    const {pen, width, height} = fitted(this.canvas), path = new Path2D();
    this.size = [width, height];
    this.points.forEach((point, n) => {
      const [x, y] = this.pixelOf(point);
      pen.fillStyle = this.colorOf(n);
      pen.fillRect(x - 2, y - 2, 4, 4);
    });
    if (this.mark) path.arc(...this.pixelOf(this.project(this.mark)), 7, 0, 7);
    if (this.cursor) {
      const [x, y] = this.pixelOf(this.cursor);
      path.addPath(new Path2D(`M${x - 9} ${y} h18 M${x} ${y - 9} v18`));
    }
    Object.assign(pen, {strokeStyle: color("ink"), lineWidth: 2});
    pen.stroke(path);
  }
}
