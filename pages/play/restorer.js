// The worker that restores sounds, so that the page stays responsive.
const restorer = {
  worker: null, timer: null, running: false,
  /** Restore a sound, then call done(channels). A new request cancels an unfinished one. Work
   * starts after 30 ms, so that a drag does not start a job at every move. */
  ask(job, done) {
    if (this.running) {
      this.worker.terminate();
      Object.assign(this, {worker: null, running: false});
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.run(job, done), 30);
  },
  run(job, done) {
    const progress = element("progress");
    this.worker ??= this.start();
    this.worker.onmessage = ({data: {fraction, restored}}) => {
      progress.value = fraction;
      if (!restored) return;
      progress.className = "idle";
      Object.assign(this, {timer: null, running: false});
      done(restored);
    };
    this.worker.postMessage(job);
    Object.assign(progress, {className: "", value: 0});
    this.running = true;
  },
  start() {
    const code = new Blob([element("core").textContent, "\nserve();"], {type: "text/javascript"});
    const address = URL.createObjectURL(code), worker = new Worker(address);
    URL.revokeObjectURL(address);
    worker.postMessage({network, constants: data.constants});
    return worker;
  },
};
