// The page's state as text, for the address and for undo. Check it: a link can contain anything.

/** describe() returns the state as {name: value}. restore() sets it from a URLSearchParams. */
class StateHistory {
  constructor(describe, restore) {
    Object.assign(this, {describe, restore, past: [], now: "", timer: null});
    onClick("undo", () => this.undo());
    addEventListener("keydown", event => {
      if (!(event.ctrlKey || event.metaKey) || event.key !== "z") return;
      event.preventDefault();
      this.undo();
    });
    addEventListener("hashchange", () => {
      if (location.hash.slice(1) !== this.now) this.start();
    });
  }
  /** Restore the state from the address. */
  start() {
    this.restore(new URLSearchParams(location.hash.slice(1)));
    this.save();
  }
  /** Save the state. Call this once per action that undo should revert, such as a stroke. */
  save() {
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
    clearTimeout(this.timer); // browsers limit how often an address changes
    this.timer = setTimeout(() => history.replaceState(null, "", `#${text}`), 200);
  }
}

/** Parse a list of finite numbers. Returns [] if the text is anything else. */
function numbersFrom(text) {
  const numbers = text?.split(",").map(Number) ?? [];
  return numbers.every(Number.isFinite) ? numbers : [];
}

/** Parse an integer from 0 to `limit` - 1. Returns `otherwise` if the text is anything else. */
function integerFrom(text, limit, otherwise) {
  return /^\d+$/.test(text ?? "") && Number(text) < limit ? Number(text) : otherwise;
}
