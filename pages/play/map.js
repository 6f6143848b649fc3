// The latent map: held-out codes projected on their first two principal axes.
const MIXED = 6; // nearest codes that are mixed at a point
const EDGE = 12; // margin around the points, CSS pixels

/** Map that calls hover(place) and choose(place). A place is [x, y] on the axes. */
class LatentMap {
  constructor(canvas, {codes, center, axes, labels, names}, hover, choose) {
    Object.assign(this, {canvas, center, axes, labels, names, cursor: null, mark: null});
    this.codes = floatsOf(bytesOf(codes));
    const count = this.codes.length / network.latent;
    this.points = Array.from({length: count}, (_, n) => this.project(this.code(n)));
    const sides = [0, 1].map(axis => this.points.map(point => point[axis]));
    this.limits = sides.map(values => [Math.min(...values), Math.max(...values)]);
    this.middle = this.limits.map(([low, high]) => (low + high) / 2);
    if (labels) names.forEach((name, kind) => this.writeKey(name, kind));
    this.listen(hover, choose);
    redrawnBy(() => this.draw(), canvas);
  }
  code(n) { return this.codes.subarray(n * network.latent, (n + 1) * network.latent); }
  /** Return the label of example n, or undefined if there are no labels. */
  nameOf(n) { return this.names[this.labels?.[n]]; }
  project(z) {
    const {axes, center} = this;
    return axes.map(axis => axis.reduce((sum, value, i) => sum + value * (z[i] - center[i]), 0));
  }
  colorOf(kind) { return `hsl(${360 * kind / this.names.length} 65% 50%)`; }
  writeKey(name, kind) {
    const key = make("span"), dot = make("i");
    dot.style.background = this.colorOf(kind);
    key.append(dot, name);
    element("legend").append(key);
  }
  listen(hover, choose) {
    const {canvas, limits, middle} = this;
    const move = (cursor, act) => {
      this.cursor = cursor;
      act(cursor);
      this.draw();
    };
    const leave = () => move(null, () => { element("near").textContent = ""; });
    const pointed = act => event => move(this.placeAt(...placeOn(canvas, event)), act);
    canvas.addEventListener("pointermove", pointed(hover));
    canvas.addEventListener("click", pointed(choose));
    for (const name of ["pointerleave", "blur"]) canvas.addEventListener(name, leave);
    onKeys(canvas, ["Enter"], (key, [right, down]) => {
      const [x, y] = this.cursor ?? middle, step = (limits[0][1] - limits[0][0]) / 40;
      const to = [clamp(x + step * right, ...limits[0]), clamp(y - step * down, ...limits[1])];
      move(to, key === "Enter" ? choose : hover);
    });
  }
  /** Return the `count` examples nearest to a place, as pairs [squared distance, example]. */
  nearest([x, y], count = 1) {
    const distances = this.points.map(([a, b], n) => [(a - x) ** 2 + (b - y) ** 2, n]);
    return distances.sort((a, b) => a[0] - b[0]).slice(0, count);
  }
  /** Return the mean of the codes nearest to a place, weighted by inverse squared distance. */
  between(place) {
    const near = this.nearest(place, MIXED), weights = near.map(([square]) => 1 / (square + 1e-6));
    const all = weights.reduce((a, b) => a + b), codes = near.map(([, n]) => this.code(n));
    return codes[0].map((_, i) => codes.reduce((z, code, k) => z + weights[k] / all * code[i], 0));
  }
  placeAt(x, y) {
    const {scale, middle: [left, top], size: [width, height]} = this;
    return [left + (x - 0.5) * width / scale, top - (y - 0.5) * height / scale];
  }
  pixelOf([x, y]) {
    const {scale, middle: [left, top], size: [width, height]} = this;
    return [width / 2 + scale * (x - left), height / 2 - scale * (y - top)];
  }
  /** Draw the points, a circle around the mark and a cross at the cursor. */
  draw() {
    const {pen, width, height} = fitted(this.canvas), path = new Path2D(), plain = color("accent");
    this.size = [width, height]; // CSS pixels
    this.scale = Math.min(...this.limits.map( // CSS pixels per unit of the axes
      ([low, high], i) => (this.size[i] - 2 * EDGE) / Math.max(high - low, 1e-6)));
    this.points.forEach((point, n) => {
      const [x, y] = this.pixelOf(point);
      pen.fillStyle = this.labels ? this.colorOf(this.labels[n]) : plain;
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
