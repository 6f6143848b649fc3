// Helpers of both pages: data, canvases and pointers.

const MISSING = 0.2; // fraction missing, of random holes and gaps
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const element = id => document.getElementById(id);
const onClick = (id, act) => element(id)?.addEventListener("click", act);
const onInput = (id, act) => element(id)?.addEventListener("input", event => act(event.target));
const onChange = (id, act) => element(id)?.addEventListener("change", event => act(event.target));
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const data = JSON.parse(element("data").textContent);
const network = readNetwork(data.network);

/** Split the block of weights into layers and prior, in the order of play.py. */
function readNetwork({weights, sizes, components, likelihood, rate}) {
  let numbers = floatsOf(bytesOf(weights));
  const take = count => {
    const taken = numbers.subarray(0, count);
    numbers = numbers.subarray(count);
    return taken;
  };
  const layers = widths => widths.slice(1).map(
    (width, i) => ({kernel: take(widths[i] * width), bias: take(width)}));
  const encoder = layers(sizes.encoder), decoder = layers(sizes.decoder);
  const latent = sizes.decoder[0], size = components * latent;
  const prior = {logits: take(components), means: take(size), logVars: take(size)};
  return {encoder, decoder, prior, latent, window: sizes.encoder[0], likelihood, rate};
}

/** Give a canvas the screen's resolution. Its pen draws in CSS pixels. */
function fitted(canvas) {
  const {width, height} = canvas.getBoundingClientRect(), density = devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * density));
  canvas.height = Math.max(1, Math.round(height * density));
  const pen = canvas.getContext("2d");
  pen.scale(canvas.width / width, canvas.height / height);
  return {pen, width, height};
}

const color = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Draw again after a canvas changes size or the color scheme changes. */
function redrawnBy(draw, ...canvases) {
  const observer = new ResizeObserver(draw);
  canvases.forEach(canvas => observer.observe(canvas));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

/** Position of a pointer on an element, x and y as fractions of its size. */
function placeOn(target, event) {
  const box = target.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

/** Follow a pointer from press to release. down, move and up take its events. */
function dragged(target, {down, move, up}) {
  target.addEventListener("pointerdown", event => {
    if (event.button) return;
    event.preventDefault();
    target.focus({preventScroll: true});
    target.setPointerCapture(event.pointerId);
    down(event);
  });
  const whilePressed = act => event => {
    if (target.hasPointerCapture(event.pointerId)) act(event);
  };
  const follow = event => [...event.getCoalescedEvents?.() ?? [], event].forEach(each => move(each));
  target.addEventListener("pointermove", whilePressed(follow));
  for (const name of ["pointerup", "pointercancel"]) target.addEventListener(name, whilePressed(up));
}
