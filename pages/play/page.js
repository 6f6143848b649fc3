// What both pages to play with share: the data, what is undone, drawing, and the latent map.

const element = id => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const data = JSON.parse(element("data").textContent);
const network = readNetwork(data.network);

/** The weights as layers, from one block of numbers in the order in which play.py has put them there. */
function readNetwork({weights, sizes, components, likelihood, rate}) {
  const numbers = floatsOf(bytesOf(weights)), {encoder, decoder} = sizes, latent = decoder[0];
  let at = 0;
  const take = count => numbers.slice(at, at += count);
  const layers = widths => widths.slice(1).map((width, i) => ({kernel: take(widths[i] * width), bias: take(width)}));
  const both = {encoder: layers(encoder), decoder: layers(decoder)};
  const prior = {logits: take(components), means: take(components * latent), logVars: take(components * latent)};
  return {...both, prior, latent, window: encoder[0], likelihood, rate};
}

/** The page's state as text: kept in the address, so that it can be sent, and for undo. `describe` gives it, `restore`
 * takes it, from whoever wrote it: it must not trust it. */
class Remembered {
  constructor(describe, restore) {
    Object.assign(this, {describe, restore, past: [], now: ""});
    element("undo").addEventListener("click", () => this.undo());
    addEventListener("keydown", event => {
      if (!(event.ctrlKey || event.metaKey) || event.key !== "z") return;
      event.preventDefault();
      this.undo();
    });
    addEventListener("hashchange", () => { if (this.address() !== this.now) this.start(); });
  }

  address() { return location.hash.slice(1); }

  start() {
    this.restore(new URLSearchParams(this.address()));
    this.changed();
  }

  /** To be called after each change that a person would call one: not at every move of a pen. */
  changed() {
    const text = new URLSearchParams(this.describe()).toString().replaceAll("%2C", ",");
    if (text === this.now) return;
    if (this.now) this.past.push(this.now);
    this.show(text);
  }

  undo() {
    if (!this.past.length) return;
    const text = this.past.pop();
    this.restore(new URLSearchParams(text));
    this.show(text);
  }

  show(text) {
    this.now = text;
    element("undo").disabled = !this.past.length;
    clearTimeout(this.timer); // browsers mind an address that changes many times a second
    this.timer = setTimeout(() => history.replaceState(null, "", `#${text}`), 200);
  }
}

/** A list of numbers from an address, if it is one of this length. */
function numbersFrom(text, length) {
  const numbers = (text ?? "").split(",").map(Number);
  return text && numbers.length === length && numbers.every(Number.isFinite) ? numbers : null;
}

/** Whole numbers that may be chosen from: `text` as one of them, else `otherwise`. */
function wholeFrom(text, below, otherwise) {
  return /^\d+$/.test(text ?? "") && Number(text) < below ? Number(text) : otherwise;
}

/** A canvas with as many pixels as the screen shows, to be drawn on in the page's units. */
function fitted(canvas) {
  const {width, height} = canvas.getBoundingClientRect(), dense = devicePixelRatio || 1;
  [canvas.width, canvas.height] = [Math.max(1, Math.round(width * dense)), Math.max(1, Math.round(height * dense))];
  const pen = canvas.getContext("2d");
  pen.scale(canvas.width / width, canvas.height / height);
  return {pen, width, height};
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Draw again when what is drawn on has changed: its size, or the light. */
function redrawnBy(draw, canvases) {
  const observer = new ResizeObserver(draw);
  canvases.forEach(canvas => observer.observe(canvas));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

/** Where a pointer is on an element, from 0 to 1 both ways. */
function placeOn(target, event) {
  const box = target.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

/** Follow a pointer from where it is pressed until it is let go: act(what, event), with "down", "move" or "up". */
function dragged(target, act) {
  target.addEventListener("pointerdown", event => {
    if (event.button) return;
    event.preventDefault();
    target.focus({preventScroll: true});
    target.setPointerCapture(event.pointerId);
    act("down", event);
    const move = next => (next.getCoalescedEvents?.() ?? []).concat(next).forEach(each => act("move", each));
    target.addEventListener("pointermove", move);
    const end = last => {
      target.removeEventListener("pointermove", move);
      ["pointerup", "pointercancel"].forEach(name => target.removeEventListener(name, end));
      act("up", last);
    };
    ["pointerup", "pointercancel"].forEach(name => target.addEventListener(name, end));
  });
}

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const COLOURS = "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #7f7f7f #bcbd22 #17becf".split(" ");
const MIXED = 6; // held-out codes around the pointer, of which what lies there is a mixture

/** Held-out codes on their two principal axes. Calls on.hover(place), on.leave(), on.down(place), on.up(place), with a
 * place in units of the axes. */
class LatentMap {
  constructor(canvas, {codes, centre, axes, labels, names}, on) {
    Object.assign(this, {canvas, labels, names, on, cursor: null, mark: null, size: [1, 1]});
    this.codes = floatsOf(bytesOf(codes));
    [this.centre, this.axes] = [centre, axes];
    this.points = Array.from({length: this.codes.length / network.latent}, (_, n) => this.project(this.code(n)));
    const sides = [0, 1].map(axis => this.points.map(point => point[axis]));
    this.limits = sides.map(side => [Math.min(...side), Math.max(...side)]);
    this.listen();
    if (labels) this.writeLegend();
    redrawnBy(() => this.drawPoints(), [canvas]);
  }

  code(n) { return this.codes.subarray(n * network.latent, (n + 1) * network.latent); }

  /** What a held-out example is labelled; undefined without labels. */
  nameOf(n) { return this.names[this.labels?.[n]]; }

  project(z) {
    return this.axes.map(axis => axis.reduce((sum, value, i) => sum + value * (z[i] - this.centre[i]), 0));
  }

  colourOf(n) {
    const kinds = this.names.length, kind = this.labels?.[n];
    if (kind === undefined) return colour("accent");
    return kinds <= COLOURS.length ? COLOURS[kind] : `hsl(${360 * kind / kinds} 65% 50%)`;
  }

  writeLegend() {
    const keys = this.names.map((name, kind) => {
      const key = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = this.colourOf(this.labels.indexOf(kind));
      key.append(dot, name);
      return key;
    });
    element("legend").replaceChildren(...keys);
  }

  listen() {
    const {canvas, on} = this;
    const point = event => (this.cursor = this.placeAt(...placeOn(canvas, event)));
    dragged(canvas, (what, event) => {
      const place = point(event);
      this.draw();
      ({down: on.down, move: on.hover, up: on.up})[what]?.(place);
    });
    canvas.addEventListener("pointermove", event => { if (!event.buttons) on.hover(point(event)), this.draw(); });
    canvas.addEventListener("pointerleave", () => { this.cursor = null, on.leave(), this.draw(); });
    canvas.addEventListener("blur", () => { this.cursor = null, on.leave(), this.draw(); });
    canvas.addEventListener("keydown", event => this.key(event));
  }

  key(event) {
    const step = ARROWS[event.key], {limits, on} = this;
    if (!step && event.key !== "Enter") return;
    event.preventDefault();
    this.cursor ??= limits.map(([low, high]) => (low + high) / 2);
    if (step) {
      const size = (limits[0][1] - limits[0][0]) / 40;
      this.cursor = this.cursor.map((value, i) => clamp(value + size * [1, -1][i] * step[i], ...limits[i]));
      on.hover(this.cursor);
    } else {
      on.down(this.cursor);
      on.up(this.cursor);
    }
    this.draw();
  }

  /** Held-out examples from the nearest on. */
  nearest([x, y], count = 1) {
    const far = this.points.map(([a, b], n) => [(a - x) ** 2 + (b - y) ** 2, n]);
    return far.sort((a, b) => a[0] - b[0]).slice(0, count);
  }

  /** What lies at a place: the codes around it, the nearer the more. The plane itself lacks all the other axes. */
  between(place) {
    const z = new Float32Array(network.latent), near = this.nearest(place, MIXED);
    const weights = near.map(([distance]) => 1 / (distance + 1e-6)), sum = weights.reduce((a, b) => a + b);
    near.forEach(([, n], k) => this.code(n).forEach((value, i) => { z[i] += weights[k] / sum * value; }));
    return z;
  }

  /** The same unit along both axes, the middle in the middle. */
  get frame() {
    const [width, height] = this.size, edge = 12;
    const spans = this.limits.map(([low, high]) => Math.max(high - low, 1e-6));
    const unit = Math.min((width - 2 * edge) / spans[0], (height - 2 * edge) / spans[1]);
    return {unit, size: this.size, middle: this.limits.map(([low, high]) => (low + high) / 2)};
  }

  placeAt(x, y) {
    const {unit, size, middle} = this.frame;
    return [middle[0] + (x - 0.5) * size[0] / unit, middle[1] - (y - 0.5) * size[1] / unit];
  }

  pixelOf([x, y]) {
    const {unit, size, middle} = this.frame;
    return [size[0] / 2 + unit * (x - middle[0]), size[1] / 2 - unit * (y - middle[1])];
  }

  /** The points, drawn once for all that is drawn over them at each move. */
  drawPoints() {
    const {pen, width, height} = fitted(this.canvas);
    [this.ink, this.size] = [colour("ink"), [width, height]];
    this.points.forEach((point, n) => {
      pen.fillStyle = this.colourOf(n);
      this.circle(pen, point, 2.5), pen.fill();
    });
    this.under ??= document.createElement("canvas");
    [this.under.width, this.under.height] = [this.canvas.width, this.canvas.height];
    this.under.getContext("2d").drawImage(this.canvas, 0, 0);
    this.draw();
  }

  circle(pen, at, radius) { pen.beginPath(), pen.arc(...this.pixelOf(at), radius, 0, 7); }

  draw() {
    if (!this.under) return;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, ...this.size);
    pen.drawImage(this.under, 0, 0, ...this.size);
    pen.strokeStyle = this.ink, pen.lineWidth = 2;
    if (this.mark) this.circle(pen, this.project(this.mark), 7), pen.stroke();
    if (!this.cursor) return;
    const [x, y] = this.pixelOf(this.cursor);
    pen.beginPath(), pen.moveTo(x - 9, y), pen.lineTo(x + 9, y), pen.moveTo(x, y - 9), pen.lineTo(x, y + 9);
    pen.stroke();
  }
}
