// Gliding from sound to sound through latent space, as in signals/blending.py.

const GLIDE_HOPS = 16; // per window
const GLIDE_SECONDS = 30; // at most
const LEVEL = 0.25; // RMS
const PULL = 0.06; // per hop: weight that moves to the note under the pointer

/** Period of a held-out window in samples: its note's, or the lag of its best autocorrelation. */
function periodOf(values, n) {
  const note = notes?.find(({name}) => name === map.nameOf(n));
  if (note) return network.rate / note.frequency;
  let best = values.length >> 1, highest = -Infinity;
  for (let lag = Math.ceil(network.rate / 2000); lag <= values.length / 2; lag++) {
    let product = 0, energy = 1e-12;
    for (let i = lag; i < values.length; i++) {
      product += 2 * values[i] * values[i - lag];
      energy += values[i] ** 2 + values[i - lag] ** 2;
    }
    if (product / energy <= highest + 0.02) continue;
    highest = product / energy;
    best = lag;
  }
  return best;
}

/** A held-out sound, continued by its period so that it has a code at every phase. */
class Tone {
  constructor(n) {
    const {window} = network, values = decode(network, map.code(n)), period = periodOf(values, n);
    const samples = Float32Array.from({length: window + Math.ceil(period)}, (_, i) => {
      const place = i - period * Math.max(0, Math.ceil((i - window + 1) / period));
      const low = Math.floor(place), next = values[low + 1] ?? values[low];
      return values[low] + (place - low) * (next - values[low]);
    });
    Object.assign(this, {samples, period, weight: 0, codes: new Map()});
  }

  codeAt(place) {
    const start = Math.floor(place % this.period), {codes, samples} = this;
    if (!codes.has(start)) {
      codes.set(start, encode(network, samples.subarray(start, start + network.window)));
    }
    return codes.get(start);
  }
}

/** Overlap-add of decoded mixtures of codes. Each tone's code is taken at the phase it would have
 * if it had played all the time: windows with unrelated phases would cancel. */
class Glide {
  constructor() {
    const {window} = network, hop = Math.max(1, Math.floor(window / GLIDE_HOPS));
    const taper = hann(window), sum = new Float64Array(window);
    Object.assign(this, {hop, taper, sum, place: 0, tones: new Map()});
  }

  /** Go one hop toward example `goal`, and return its samples. */
  step(goal) {
    const {hop, taper, sum} = this, values = decode(network, this.mixToward(goal));
    const energy = values.reduce((total, value) => total + value ** 2, 0);
    const gain = LEVEL * 2 / GLIDE_HOPS / (Math.sqrt(energy / values.length) + 1e-9);
    values.forEach((value, i) => { sum[i] += gain * taper[i] * value; });
    const done = sum.slice(0, hop);
    sum.copyWithin(0, hop).fill(0, sum.length - hop);
    this.place += hop;
    return done;
  }

  mixToward(goal) {
    const {tones, place} = this, first = !tones.size, z = new Float32Array(network.latent);
    if (!tones.has(goal)) tones.set(goal, new Tone(goal));
    for (const [n, tone] of tones) {
      tone.weight = first ? 1 : tone.weight + PULL * ((n === goal) - tone.weight);
      if (tone.weight < 0.01 && n !== goal) tones.delete(n);
    }
    const total = [...tones.values()].reduce((sum, {weight}) => sum + weight, 0);
    for (const tone of tones.values()) {
      tone.codeAt(place).forEach((value, i) => { z[i] += tone.weight / total * value; });
    }
    return z;
  }
}

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

  /** Schedule the next samples. A click plays for a moment, a drag as long as it lasts. */
  fill() {
    while (this.time < this.context.currentTime + 0.15) {
      const parts = Array.from({length: 8}, () => [...this.glide.step(this.goal)]);
      const values = Float32Array.from(parts.flat());
      if (!values.length) continue;
      const buffer = player.bufferOf({rate: network.rate, channels: [values]});
      const source = new AudioBufferSourceNode(this.context, {buffer});
      source.connect(this.out);
      source.start(this.time);
      this.time += buffer.duration;
      this.left -= buffer.duration;
      const full = this.glide.place + 9 * network.window > this.glide.sum.length;
      if (full || !this.held && this.left <= 0) {
        this.end();
        return;
      }
    }
  },

  up() { this.held = false; },

  end() {
    clearInterval(this.timer);
    this.out?.gain.setTargetAtTime(0, this.time - 0.05, 0.02); // a fade avoids a click
    Object.assign(this, {timer: null, out: null});
  },
};
