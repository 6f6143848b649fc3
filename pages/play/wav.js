// WAV files. The browser's own reader resamples them and does not report their rate.

const PCM = 1, FLOAT = 3, EXTENSIBLE = 0xfffe;

/** The first chunk of each name in a RIFF file. */
function chunksOf(view) {
  const name = at => String.fromCharCode(...[0, 1, 2, 3].map(i => view.getUint8(at + i)));
  if (view.byteLength < 12 || name(0) !== "RIFF" || name(8) !== "WAVE") {
    throw Error("not a WAV file; choose a file with PCM or float samples");
  }
  const chunks = {};
  for (let at = 12; at + 8 <= view.byteLength;) {
    const size = view.getUint32(at + 4, true);
    // Files that were cut short or streamed claim more than they hold.
    chunks[name(at)] ??= {at: at + 8, size: Math.min(size, view.byteLength - at - 8)};
    at += 8 + size + size % 2;
  }
  return chunks;
}

/** Return a function that reads the sample at an offset; full scale is -1 to 1. */
function sampleReader(view, format, bits) {
  const readers = {
    [`${PCM} 8`]: at => (view.getUint8(at) - 128) / 128,
    [`${PCM} 16`]: at => view.getInt16(at, true) / 2 ** 15,
    [`${PCM} 24`]: at => (view.getInt8(at + 2) * 65536 + view.getUint16(at, true)) / 2 ** 23,
    [`${PCM} 32`]: at => view.getInt32(at, true) / 2 ** 31,
    [`${FLOAT} 32`]: at => view.getFloat32(at, true),
    [`${FLOAT} 64`]: at => view.getFloat64(at, true),
  };
  const reader = readers[`${format} ${bits}`], found = `format ${format}, ${bits} bits`;
  if (!reader) throw Error(`samples must be PCM or float (${found}); save the file again`);
  return reader;
}

/** Read a WAV file from an ArrayBuffer: rate, bits, and one Float32Array per channel. */
function readWav(buffer) {
  const view = new DataView(buffer), {"fmt ": head, data} = chunksOf(view);
  if (!head || head.size < 16 || !data) throw Error("header or samples not found; save it again");
  const count = view.getUint16(head.at + 2, true), rate = view.getUint32(head.at + 4, true);
  const bits = view.getUint16(head.at + 14, true), tag = view.getUint16(head.at, true);
  const format = tag === EXTENSIBLE && head.size >= 26 ? view.getUint16(head.at + 24, true) : tag;
  const read = sampleReader(view, format, bits), bytes = bits / 8;
  const frames = count && Math.floor(data.size / bytes / count);
  if (!frames || !rate) throw Error("holds no samples; choose another file");
  const channels = Array.from({length: count}, (_, channel) =>
    Float32Array.from({length: frames}, (_, i) => read(data.at + bytes * (i * count + channel))));
  if (channels.some(values => !values.every(Number.isFinite))) {
    throw Error("has NaN or Inf among its samples; set them to 0");
  }
  return {rate, bits, channels};
}

/** Write a PCM WAV file: 24 bits for sounds of more than 16, else 16. Clips at full scale. */
function writeWav({rate, bits, channels}) {
  const bytes = bits > 16 ? 3 : 2, frame = bytes * channels.length, top = 2 ** (8 * bytes - 1);
  const size = frame * channels[0].length, view = new DataView(new ArrayBuffer(44 + size + size % 2));
  const header = ["RIFF", view.byteLength - 8, "WAVE", "fmt ", 16, PCM + 65536 * channels.length,
    rate, rate * frame, frame + 65536 * 8 * bytes, "data", size];
  header.forEach((field, i) => {
    if (Number.isInteger(field)) view.setUint32(4 * i, field, true);
    else [...field].forEach((letter, k) => view.setUint8(4 * i + k, letter.charCodeAt(0)));
  });
  channels.forEach((values, channel) => values.forEach((value, i) => {
    const level = clamp(Math.round(value * top), -top, top - 1);
    const at = 44 + i * frame + channel * bytes;
    if (bytes === 3) view.setUint8(at, level & 255);
    view.setInt16(at + bytes - 2, level >> 8 * (bytes - 2), true);
  }));
  return view.buffer;
}
