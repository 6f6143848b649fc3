// Helpers of both pages: data, canvases, keys and pointers.
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const element = id => document.getElementById(id);
const onClick = (id, act) => element(id)?.addEventListener("click", act);
const onInput = (id, act) => element(id)?.addEventListener("input", event => act(event.target));
const onChange = (id, act) => element(id)?.addEventListener("change", event => act(event.target));
const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const color = name => getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();
const data = JSON.parse(element("data").textContent), network = readNetwork(data.network);

/** Give a canvas the screen's resolution. Returns a context that draws in CSS pixels. */
function fitted(canvas) {
  const {width, height} = canvas.getBoundingClientRect(), density = devicePixelRatio || 1;
  const [across, down] = [width, height].map(side => Math.max(1, Math.round(side * density)));
  const pen = Object.assign(canvas, {width: across, height: down}).getContext("2d");
  pen.scale(across / width, down / height);
  return {pen, width, height};
}

/** Call draw() when the size of the canvas or the color scheme of the page changes. */
function redrawnBy(draw, canvas) {
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

/** Return the position of a pointer on an element, as fractions of its width and height. */
function placeOn(target, {clientX, clientY}) {
  const {left, top, width, height} = target.getBoundingClientRect();
  return [(clientX - left) / width, (clientY - top) / height];
}

/** Call act(key, [right, down], shift) for arrow keys, and for `keys` with a step of [0, 0]. */
function onKeys(target, keys, act) {
  target.addEventListener("keydown", event => {
    const step = ARROWS[event.key];
    if (!step && !keys.includes(event.key)) return;
    event.preventDefault();
    act(event.key, step ?? [0, 0], event.shiftKey);
  });
}

/** Follow a pointer from press to release: call down, move and up with its position. */
function dragged(target, {down, move, up}) {
  target.addEventListener("pointerdown", event => {
    if (event.button) return;
    event.preventDefault();
    target.focus({preventScroll: true});
    target.setPointerCapture(event.pointerId);
    down(...placeOn(target, event));
  });
  for (const [name, act] of [["pointermove", move], ["pointerup", up], ["pointercancel", up]]) {
    target.addEventListener(name, event => {
      if (!target.hasPointerCapture(event.pointerId)) return;
      const passed = event.getCoalescedEvents?.() ?? []; // since the last event
      [...passed, event].forEach(each => act(...placeOn(target, each)));
    });
  }
}
