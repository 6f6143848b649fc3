// Glides from sound to sound through latent space, as in signals/blending.py.
const GLIDE_HOPS = 16; // per window
const HOPS_AT_ONCE = 8; // scheduled together
const LEVEL = 0.25; // RMS
const PULL = 0.06; // fraction of the weight that moves to the sound under the pointer, per hop

/** Return the period of a held-out window in samples, from its note or its strongest partial. */
function periodOf(values, n) {
  const note = notes?.find(({name}) => name === map.nameOf(n));
  if (note) return network.rate / note.frequency;
  const padded = new Float64Array(2 ** Math.ceil(Math.log2(16 * values.length)));
  padded.set(hann(values.length).map((weight, i) => weight * values[i]));
  const levels = spectrumOf(padded.length)(padded), strongest = levels.indexOf(peakOf(levels));
  return Math.min(values.length / 2, padded.length / strongest);
}

/** Return a held-out sound as a tone: continued periodically, with a code at every phase. */
function toneOf(n) {
  const {window} = network, values = decode(network, map.code(n)), period = periodOf(values, n);
  const codes = new Map(), samples = new Float32Array(window + Math.ceil(period)).map((_, i) => {
    const place = i - period * Math.max(0, Math.ceil((i - window + 1) / period));
    const low = Math.floor(place), next = values[low + 1] ?? values[low];
    return values[low] + (place - low) * (next - values[low]);
  });
  const codeAt = place => {
    const start = Math.floor(place % period);
    const code = codes.get(start) ?? encode(network, samples.subarray(start, start + window));
    codes.set(start, code);
    return code;
  };
  return {weight: 0, codeAt};
}

/** Overlap-add of decoded mixtures of codes. Each tone is encoded at the phase it would have if it
 * had played from the start. Otherwise overlapping windows could cancel. */
class Glide {
  constructor() {
    const {window} = network, hop = Math.max(1, Math.floor(window / GLIDE_HOPS));
    const sum = new Float64Array(2 * window); // one window before `place` and one after it
    Object.assign(this, {hop, sum, taper: hann(window), place: 0, tones: new Map()});
  }
  /** Go one hop toward example `goal`. Returns the next samples, or [] in the first 1.5 windows. */
  step(goal) {
    const {hop, taper, sum} = this, {window} = network, values = decode(network, this.mix(goal));
    const rms = Math.sqrt(values.reduce((total, value) => total + value ** 2, 0) / window) + 1e-9;
    values.forEach((value, i) => { sum[window + i] += taper[i] * value / rms; });
    // Overlapping windows of different sounds partly cancel, so the sum is normalized too.
    const power = taper.reduce((total, weight, i) => total + weight * sum[i] ** 2, 1e-9);
    const gain = LEVEL * Math.sqrt(window / 2 / power), middle = window >> 1;
    const done = sum.slice(middle, middle + hop).map(value => gain * value);
    sum.copyWithin(0, hop).fill(0, 2 * window - hop);
    this.place += hop;
    return this.place > 1.5 * window ? done : [];
  }
  /** Move the weights toward the goal by PULL, and return the weighted mean code of the tones. */
  mix(goal) {
    const {tones, place} = this, first = !tones.size;
    if (!tones.has(goal)) tones.set(goal, toneOf(goal));
    for (const [n, tone] of tones) {
      tone.weight = first ? 1 : tone.weight + PULL * ((n === goal) - tone.weight);
      if (tone.weight < 0.01 && n !== goal) tones.delete(n);
    }
    const all = [...tones.values()];
    return meanCode(all.map(tone => tone.codeAt(place)), all.map(tone => tone.weight));
  }
}

// time: start of the next samples, s. held: true while pressed. left: s of a click still to play.
const gliding = {
  goal: null, glide: null, timer: null, out: null,
  down(place) {
    this.end();
    const context = player.open(), time = context.currentTime + 0.05;
    const out = new GainNode(context, {gain: 0});
    out.connect(context.destination);
    out.gain.setTargetAtTime(1, time, 0.01);
    Object.assign(this, {glide: new Glide(), context, out, time, held: true, left: 0.4});
    this.timer = setInterval(() => this.fill(), 30);
    this.toward(place);
  },
  toward(place) {
    const [[, n]] = map.nearest(place), hint = this.timer ? "" : "; press to hear it";
    this.goal = n;
    element("near").textContent = `Nearest: ${map.nameOf(n) ?? `no. ${n}`}${hint}`;
  },
  /** Schedule the next samples. A click plays for 0.4 s, a longer press until its release. */
  fill() {
    while (this.timer && this.time < this.context.currentTime + 0.15) {
      const parts = Array.from({length: HOPS_AT_ONCE}, () => [...this.glide.step(this.goal)]);
      const values = Float32Array.from(parts.flat()), seconds = values.length / network.rate;
      if (!seconds) continue;
      const source = player.sourceOf({rate: network.rate, channels: [values]});
      source.connect(this.out);
      source.start(this.time);
      this.time += seconds;
      this.left -= seconds;
      if (!this.held && this.left <= 0) this.end();
    }
  },
  up() { this.held = false; },
  end() {
    clearInterval(this.timer);
    this.out?.gain.setTargetAtTime(0, this.time - 0.05, 0.02); // fade out without a click
    Object.assign(this, {timer: null, out: null});
  },
};
