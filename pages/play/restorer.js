// The worker that restores sounds, so that the page stays responsive.

const restorer = {
  worker: null, number: 0, busy: false, waiting: null,

  /** Restore a sound. While the worker is busy, only the last request waits. */
  ask(job, done) {
    if (this.busy) {
      this.waiting = [job, done];
      return;
    }
    this.worker ??= this.start();
    Object.assign(this, {busy: true, done, begun: performance.now(), number: this.number + 1});
    this.worker.postMessage({number: this.number, ...job});
    element("progress").classList.remove("idle");
    element("progress").value = 0;
  },

  start() {
    const code = new Blob([element("core").textContent, "\nserve();"], {type: "text/javascript"});
    const address = URL.createObjectURL(code), worker = new Worker(address);
    URL.revokeObjectURL(address);
    worker.postMessage({network, constants: data.constants});
    worker.onmessage = ({data: {number, progress, restored}}) => {
      if (number !== this.number) return;
      if (restored) this.finish(restored);
      else element("progress").value = progress;
    };
    return worker;
  },

  finish(restored) {
    Object.assign(this, {busy: false, milliseconds: performance.now() - this.begun});
    element("progress").classList.add("idle");
    this.done(restored);
    const next = this.waiting;
    this.waiting = null;
    if (next) this.ask(...next);
  },

  /** Abandon the present sound. */
  drop() {
    if (this.busy) {
      this.worker.terminate();
      this.worker = null;
    }
    Object.assign(this, {busy: false, waiting: null});
  },
};
