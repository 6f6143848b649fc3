// Playing sounds.
const LOWEST_RATE = 8000; // Hz; browsers need not play lower rates
const player = {
  context: null, source: null, button: null,
  /** Play a sound. If `button` started the sound that is playing, only stop it. */
  play(sound, button) {
    const stops = this.source && this.button === button;
    this.stop();
    if (!sound || stops) return;
    const {rate, channels} = sound, played = Math.max(rate, LOWEST_RATE);
    this.context ??= new AudioContext();
    this.context.resume();
    const buffer = this.context.createBuffer(channels.length, channels[0].length, played);
    channels.forEach((values, i) => buffer.copyToChannel(values, i));
    const source = new AudioBufferSourceNode(this.context, {buffer, playbackRate: rate / played});
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
