// Playing sounds.
const LOWEST_RATE = 8000; // Hz; browsers need not play lower rates
const player = {
  context: null, source: null, button: null,
  /** Call this from a click or a key press, because browsers play no sound before the first one. */
  open() {
    this.context ??= new AudioContext();
    this.context.resume();
    return this.context;
  },
  sourceOf({rate, channels}) {
    const context = this.open(), played = Math.max(rate, LOWEST_RATE);
    const buffer = context.createBuffer(channels.length, channels[0].length, played);
    channels.forEach((values, i) => buffer.copyToChannel(values, i));
    return new AudioBufferSourceNode(context, {buffer, playbackRate: rate / played});
  },
  /** Play a sound. If `button` started the sound that is playing, only stop it. */
  play(what, button) {
    const stops = this.source && this.button === button;
    this.stop();
    if (!what || stops) return;
    const source = this.sourceOf(what);
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
