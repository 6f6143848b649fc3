// Reads WAV files and the microphone, and writes WAV files.
const PCM = 1, RECORDED = 3; // seconds
const RAW = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};

/** Decode an audio file at a sample rate. Returns an array of channels. */
async function decoded(buffer, rate) {
  const audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(buffer);
  return Array.from({length: audio.numberOfChannels}, (_, i) => audio.getChannelData(i));
}

/** Read a WAV file (a Blob) without changing its rate. Returns its rate and channels. */
async function readWav(blob) {
  const buffer = await blob.arrayBuffer();
  const head = new TextDecoder("latin1").decode(buffer.slice(0, 65536));
  const at = /^RIFF.{4}WAVE/s.test(head) ? head.search(/fmt [\x10\x12\x28]\0{3}/) : -1;
  if (at < 0) throw Error("not a WAV file; choose a WAV file");
  const rate = new DataView(buffer).getUint32(at + 12, true);
  const channels = await decoded(buffer, rate);
  const finite = channels.every(values => values.every(Number.isFinite));
  if (!finite) throw Error("contains NaN or Inf; set these samples to 0");
  return {rate, channels};
}

/** Record three seconds of the microphone. Returns what readWav returns. */
async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({audio: RAW});
  const recorder = new MediaRecorder(stream), rate = Math.max(network.rate, LOWEST_RATE);
  const recorded = new Promise(done => { recorder.ondataavailable = ({data}) => done(data); });
  recorder.start();
  await new Promise(done => setTimeout(done, 1000 * (RECORDED + 0.5))); // it starts late
  recorder.stop();
  stream.getTracks().forEach(track => track.stop());
  const channels = await decoded(await (await recorded).arrayBuffer(), rate);
  return {rate, channels: channels.map(values => values.slice(0, RECORDED * rate))};
}

/** Encode a sound as a 16-bit WAV file. */
function writeWav({rate, channels}) {
  const count = channels.length, size = 2 * count * channels[0].length;
  const header = new DataView(new ArrayBuffer(44));
  const fields = ["RIFF", 36 + size, "WAVE", "fmt ", 16, PCM | count << 16, rate, 2 * count * rate,
    2 * count | 16 << 16, "data", size]; // some numbers hold two 16-bit fields
  fields.forEach((field, i) => {
    if (typeof field === "number") header.setUint32(4 * i, field, true);
    else [...field].forEach((letter, k) => header.setUint8(4 * i + k, letter.charCodeAt(0)));
  });
  const samples = new Int16Array(size / 2).map(
    (_, i) => Math.round(32767 * clamp(channels[i % count][Math.floor(i / count)], -1, 1)));
  return new Blob([header, samples], {type: "audio/wav"});
}
