// The worker that does the long computations, so that the page stays responsive.
const REST = 60; // ms without a new job, for example while the pen rests, before work starts
const worker = {
  thread: null, timer: null, running: false, // timer: null if there is nothing to do
  /** Start a job after a short rest, and call show(result) for each of its results. A new job
   * cancels an unfinished one. */
  ask(job, show) {
    if (this.running) this.thread.terminate();
    if (this.running || !this.thread) this.thread = this.start(); // now, to be ready after the rest
    this.running = false;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.run(job, show), REST);
  },
  run(job, show) {
    this.thread.onmessage = ({data: result}) => {
      if (result.done) Object.assign(this, {timer: null, running: false});
      show(result);
    };
    this.thread.postMessage(job);
    this.running = true;
  },
  start() {
    const code = new Blob([element("core").textContent, "\nserve();"], {type: "text/javascript"});
    const address = URL.createObjectURL(code), thread = new Worker(address);
    URL.revokeObjectURL(address);
    thread.postMessage({network, constants: data.constants});
    return thread;
  },
};
