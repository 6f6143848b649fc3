// WAV files, read and written here: the browser's own reader would resample them and not tell their rate.

const PCM = 1, FLOAT = 3, EXTENSIBLE = 0xfffe;

/** The chunks of a RIFF file by their names, the first of each. */
function chunksOf(view) {
  const name = at => String.fromCharCode(...[0, 1, 2, 3].map(i => view.getUint8(at + i)));
  if (view.byteLength < 12 || name(0) !== "RIFF" || name(8) !== "WAVE") throw Error("not a WAV file");
  const chunks = {};
  for (let at = 12; at + 8 <= view.byteLength;) {
    const claimed = view.getUint32(at + 4, true), size = Math.min(claimed, view.byteLength - at - 8);
    chunks[name(at)] ??= {at: at + 8, size}; // a file that was cut short, or streamed, claims more than there is
    at += 8 + claimed + claimed % 2;
  }
  return chunks;
}

/** What reads one sample, full scale at -1 and 1. */
function sampleReader(view, format, bits) {
  const readers = {
    [`${PCM} 8`]: at => (view.getUint8(at) - 128) / 128,
    [`${PCM} 16`]: at => view.getInt16(at, true) / 2 ** 15,
    [`${PCM} 24`]: at => (view.getInt8(at + 2) * 65536 + view.getUint16(at, true)) / 2 ** 23,
    [`${PCM} 32`]: at => view.getInt32(at, true) / 2 ** 31,
    [`${FLOAT} 32`]: at => view.getFloat32(at, true),
    [`${FLOAT} 64`]: at => view.getFloat64(at, true),
  };
  const reader = readers[`${format} ${bits}`];
  if (!reader) throw Error(`a WAV file of a kind that this page does not read (format ${format}, ${bits} bits)`);
  return reader;
}

/** A WAV file (an ArrayBuffer): its rate, bits, and channels, one Float32Array each. Error for what is none. */
function readWav(buffer) {
  const view = new DataView(buffer), {"fmt ": head, data} = chunksOf(view);
  if (!head || head.size < 16 || !data) throw Error("a WAV file without its header or without sound");
  const [tag, count] = [view.getUint16(head.at, true), view.getUint16(head.at + 2, true)];
  const rate = view.getUint32(head.at + 4, true), bits = view.getUint16(head.at + 14, true);
  const format = tag === EXTENSIBLE && head.size >= 26 ? view.getUint16(head.at + 24, true) : tag;
  const read = sampleReader(view, format, bits), bytes = bits / 8;
  const frames = count && Math.floor(data.size / bytes / count);
  if (!frames || !rate) throw Error("a WAV file that holds no samples");
  const channels = Array.from({length: count}, (_, channel) => Float32Array.from({length: frames}, (_, i) => {
    const value = read(data.at + bytes * (i * count + channel));
    if (!Number.isFinite(value)) throw Error("a WAV file in which not all samples are numbers");
    return value;
  }));
  return {rate, bits, channels};
}

/** A WAV file of PCM: 16 bits, or 24 for what had more. What is beyond full scale is clipped. */
function writeWav({rate, bits, channels}) {
  const bytes = bits > 16 ? 3 : 2, frame = bytes * channels.length, size = frame * channels[0].length;
  const view = new DataView(new ArrayBuffer(44 + size + size % 2)), top = 2 ** (8 * bytes - 1);
  const put = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  put(0, "RIFF"), put(8, "WAVEfmt "), put(36, "data");
  view.setUint32(4, view.byteLength - 8, true), view.setUint32(16, 16, true), view.setUint32(40, size, true);
  [PCM, channels.length].forEach((value, i) => view.setUint16(20 + 2 * i, value, true));
  view.setUint32(24, rate, true), view.setUint32(28, rate * frame, true);
  [frame, 8 * bytes].forEach((value, i) => view.setUint16(32 + 2 * i, value, true));
  channels.forEach((values, channel) => values.forEach((value, i) => {
    const level = Math.min(Math.max(Math.round(value * top), -top), top - 1), at = 44 + i * frame + channel * bytes;
    if (bytes === 2) view.setInt16(at, level, true);
    else view.setUint8(at, level & 255), view.setInt16(at + 1, level >> 8, true);
  }));
  return view.buffer;
}
