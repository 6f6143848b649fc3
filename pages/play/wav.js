// Reads and writes WAV files. The browser's own decoder resamples them and hides their rate.
const PCM = 1, FLOAT = 3, EXTENSIBLE = 0xfffe;
function chunksOf(view) {
  const name = at => String.fromCharCode(...[0, 1, 2, 3].map(i => view.getUint8(at + i)));
  const isWav = view.byteLength >= 12 && name(0) === "RIFF" && name(8) === "WAVE";
  if (!isWav) throw Error("not a WAV file; choose a file with PCM or float samples");
  const chunks = {};
  for (let at = 12; at + 8 <= view.byteLength;) {
    const size = view.getUint32(at + 4, true); // a truncated file claims more than it has
    chunks[name(at)] ??= {at: at + 8, size: Math.min(size, view.byteLength - at - 8)};
    at += 8 + size + size % 2;
  }
  return chunks;
}

/** Return a function per format that reads the sample at an offset. Full scale is -1 to 1. */
const sampleReaders = view => ({
  [`${PCM} 8`]: at => (view.getUint8(at) - 128) / 128,
  [`${PCM} 16`]: at => view.getInt16(at, true) / 2 ** 15,
  [`${PCM} 24`]: at => (view.getInt8(at + 2) * 65536 + view.getUint16(at, true)) / 2 ** 23,
  [`${PCM} 32`]: at => view.getInt32(at, true) / 2 ** 31,
  [`${FLOAT} 32`]: at => view.getFloat32(at, true),
  [`${FLOAT} 64`]: at => view.getFloat64(at, true),
});

/** Read a WAV file from an ArrayBuffer. Returns its rate, bits and a Float32Array per channel. */
function readWav(buffer) {
  const view = new DataView(buffer), {"fmt ": head, data} = chunksOf(view);
  if (!head || head.size < 16 || !data) throw Error("format or samples not found; save it again");
  const [tag, count, bits] = [0, 2, 14].map(at => view.getUint16(head.at + at, true));
  const rate = view.getUint32(head.at + 4, true), bytes = bits / 8;
  const format = tag === EXTENSIBLE && head.size >= 26 ? view.getUint16(head.at + 24, true) : tag;
  const read = sampleReaders(view)[`${format} ${bits}`];
  const got = `format ${format}, ${bits} bits`;
  if (!read) throw Error(`expected PCM or float samples, got ${got}; save it as 16-bit PCM`);
  const frames = count && Math.floor(data.size / bytes / count);
  if (!frames || !rate) throw Error("contains no samples; choose another file");
  const channels = Array.from({length: count}, (_, channel) => new Float32Array(frames).map(
    (_, i) => read(data.at + bytes * (i * count + channel))));
  const finite = channels.every(values => values.every(Number.isFinite));
  if (!finite) throw Error("contains NaN or Inf; set these samples to 0");
  return {rate, bits, channels};
}

/** Encode a PCM WAV file: 24 bits if the sound had more than 16, otherwise 16. Clips at 1. */
function writeWav({rate, bits, channels}) {
  const bytes = bits > 16 ? 3 : 2, frame = bytes * channels.length, top = 2 ** (8 * bytes - 1);
  const size = frame * channels[0].length, buffer = new ArrayBuffer(44 + size + size % 2);
  const view = new DataView(buffer);
  const header = ["RIFF", buffer.byteLength - 8, "WAVE", "fmt ", 16, PCM | channels.length << 16,
    rate, rate * frame, frame | 8 * bytes << 16, "data", size]; // some hold two 16-bit fields
  header.forEach((field, i) => {
    if (typeof field === "number") view.setUint32(4 * i, field, true);
    else [...field].forEach((letter, k) => view.setUint8(4 * i + k, letter.charCodeAt(0)));
  });
  channels.forEach((values, channel) => values.forEach((value, i) => {
    const level = clamp(Math.round(value * top), -top, top - 1);
    const at = 44 + i * frame + channel * bytes;
    if (bytes === 3) view.setUint8(at, level & 255);
    view.setInt16(at + bytes - 2, level >> 8 * (bytes - 2), true);
  }));
  return buffer;
}
