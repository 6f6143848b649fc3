// The page's state as text, for the address and for undo. Check it: a link can contain anything.

/** Keeps the state in the address and in the browser's history. describe() returns the state as
 * {name: value}. restore() sets it from a URLSearchParams. */
class StateHistory {
  constructor(describe, restore) {
    Object.assign(this, {describe, restore, timer: null});
    onClick("undo", () => history.back());
    addEventListener("popstate", () => this.start()); // also when the user edits the address
  }
  get depth() { return history.state?.depth ?? 0; }
  /** Restore the state from the address. */
  start() {
    this.restore(new URLSearchParams(location.hash.slice(1)));
    this.write("replaceState", this.depth);
  }
  /** Call this after each action that undo should revert. Actions in quick succession are reverted
   * together, because browsers limit how often an address changes. */
  save() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.address !== location.hash) this.write("pushState", this.depth + 1);
    }, 200);
  }
  get address() { return `#${new URLSearchParams(this.describe())}`.replaceAll("%2C", ","); }
  write(method, depth) {
    clearTimeout(this.timer);
    history[method]({depth}, "", this.address);
    element("undo").disabled = !depth;
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
