// Playing sounds.

const LOWEST_RATE = 8000; // Hz, that every browser plays

const player = {
  context: null, source: null, button: null,

  /** Browsers play sound only after the user has pressed something. */
  open() {
    this.context ??= new AudioContext();
    this.context.resume();
    return this.context;
  },

  bufferOf({rate, channels}) {
    const played = Math.max(rate, LOWEST_RATE);
    const length = Math.round(channels[0].length * played / rate);
    const buffer = this.open().createBuffer(channels.length, length, played);
    channels.forEach((values, i) => {
      buffer.copyToChannel(played === rate ? values : resample(values, rate, played, length), i);
    });
    return buffer;
  },

  /** Play a sound; the button that started it stops it. */
  play(what, button) {
    const stops = this.button === button && this.source;
    this.stop();
    if (!what || stops) return;
    const source = new AudioBufferSourceNode(this.open(), {buffer: this.bufferOf(what)});
    source.connect(this.context.destination);
    source.onended = () => { if (this.source === source) this.stop(); };
    source.start();
    Object.assign(this, {source, button});
    button.classList.add("playing");
  },

  stop() {
    this.source?.stop();
    this.button?.classList.remove("playing");
    Object.assign(this, {source: null, button: null});
  },
};
