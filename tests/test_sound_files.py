"""Reading sound files: formats, damaged files, and recordings split into training and held out."""

import contextlib
import os
import re
import struct
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.stats
import soundfile
from commands import posix
from compressed import write

from files import folders, sound_files
from files.sound_reader import UNKNOWN, open_sound
from harness import UserError
from harness.quiet_tensorflow import tf

RATE, WINDOW, RMS = 16000, 1024, 0.4
FORMATS = [
    ("wav", "PCM_U8", 8000, 1),
    ("wav", "PCM_24", 96000, 2),
    ("wav", "FLOAT", 48000, 1),
    ("wav", "DOUBLE", 16000, 3),
    ("flac", "PCM_16", 44100, 2),
    ("ogg", "VORBIS", 22050, 1),
    ("mp3", None, 44100, 2),
]

HEADERS = [(True, 1000, 1), (True, 768_000, 1), (True, 8000, 64)]
HEADERS += [(False, 999, 1), (False, 768_001, 1), (False, 8000, 65)]


def load(path, folder=None, seconds=1.0):
    return sound_files.load(path, RATE, WINDOW, RMS, folder or Path("/tmp"), seconds)


def decoded(path):
    return np.concatenate(list(sound_files.decode(path, RATE)))


def sine(frequency, seconds, rate, channels=1, amplitude=0.3):
    wave = amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return np.stack([wave] * channels, axis=1)


def fit_440_hz(signal, rate):
    """Least-squares fit of a sinusoid from 1 s on: the weights of sine and cosine, and the fit."""
    angle = 2 * np.pi * 440 * (1 + np.arange(signal.size) / rate)
    basis = np.stack([np.sin(angle), np.cos(angle)], 1)
    weights, *_ = np.linalg.lstsq(basis, signal, rcond=None)
    return weights, basis @ weights


def noise(seconds, seed=0, level=0.1):
    return level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def starts(places):
    return np.concatenate([np.arange(*place) for place in places])


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: f"{kind[0]}-{kind[1]}")
def test_every_format_is_decoded_to_mono_at_the_given_rate(tmp_path, kind):
    suffix, subtype, rate, channels = kind
    path = tmp_path / f"-a sound é.{suffix}"
    soundfile.write(path, sine(440, 5, rate, channels), rate, subtype)  # longer than a block
    heard = decoded(path)
    assert heard.dtype == np.float32
    assert heard.size == pytest.approx(5 * RATE, abs=1)
    # The result is the sinusoid at its level, plus the noise of 8 bits and of lossy codecs. An MP3
    # may be delayed.
    weights, fitted = fit_440_hz(heard[RATE : 4 * RATE], RATE)
    assert np.hypot(*weights) == pytest.approx(0.3, rel=0.02)
    assert np.std(heard[RATE : 4 * RATE] - fitted) < 0.02 * 0.3


# Name, codec, rate, layout, samples that the codec may add or drop, minimum SNR in dB.
COMPRESSED = [
    ("a.m4a", "aac", 44100, "stereo", 0, 50),
    ("a.m4a", "alac", 48000, "mono", 0, 90),
    ("a.mp4", "aac", 16000, "mono", 0, 25),
    ("a.aac", "aac", 44100, "mono", 2048, 30),
    ("a.webm", "libopus", 48000, "stereo", 0, 40),
    ("a.opus", "libopus", 48000, "mono", 0, 40),
    ("a.mp3", "libmp3lame", 44100, "stereo", 0, 60),
    ("a.wma", "wmav2", 44100, "mono", 2048, 40),
    ("a.3gp", "amr_nb", 8000, "mono", 0, 15),
]


@pytest.mark.parametrize("name, codec, rate, layout, extra, ratio_db", COMPRESSED)
def test_compressed_sound_is_read_whole(tmp_path, name, codec, rate, layout, extra, ratio_db):
    signal = sine(440, 3.01, rate)[:, 0]
    write(tmp_path / name, signal, rate, codec, layout)
    with open_sound(tmp_path / name) as sound:
        samples = np.concatenate(list(sound.blocks()))
    assert (sound.rate, sound.channels) == (rate, 2 if layout == "stereo" else 1)
    if name.endswith((".aac", ".mp3", ".wma")):  # FFmpeg could only guess, from the bit rate
        assert sound.seconds is None
    else:
        assert f"{sound.seconds:.1f}" == "3.0"  # Python 3.11 cannot format a Fraction like this
        assert sound.seconds == pytest.approx(len(samples) / rate, abs=2048 / rate)
    assert abs(len(samples) - signal.size) <= extra
    for channel in samples[rate : 2 * rate].T:
        weights, fitted = fit_440_hz(channel, rate)
        assert 10 * np.log10(np.var(fitted) / np.var(channel - fitted)) > ratio_db
        if not extra and codec != "amr_nb":  # no delay
            np.testing.assert_allclose(weights, [0.3, 0], atol=0.02)
    whole = decoded(tmp_path / name)
    assert abs(whole.size / RATE - len(samples) / rate) < 1e-3


@pytest.mark.parametrize("size", [100, 1000, 30_011])
def test_vorbis_is_read_as_by_libsndfile(tmp_path, size):
    soundfile.write(tmp_path / "a.ogg", noise(2)[:size], RATE)
    with open_sound(tmp_path / "a.ogg") as sound:
        samples = np.concatenate(list(sound.blocks()))[:, 0]
    np.testing.assert_allclose(samples, soundfile.read(tmp_path / "a.ogg")[0], atol=1e-6)


@pytest.mark.parametrize("begins", [0, 3])  # seconds; a cut or a live stream begins later than 0
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_sound_that_begins_after_the_picture_stays_in_place(tmp_path, name, begins):
    with av.open(tmp_path / name, "w") as container:
        picture, sound = container.add_stream("mpeg4", 10), container.add_stream("aac", RATE)
        picture.width = picture.height = 64
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            frame.pts = 10 * begins + number
            container.mux(picture.encode(frame))
        frame = av.AudioFrame.from_ndarray(np.float32(noise(0.2))[None], "fltp", "mono")
        frame.rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts = RATE * begins + RATE // 2
        container.mux(picture.encode(None) + sound.encode(frame) + sound.encode(None))
    with open_sound(tmp_path / name) as found:
        samples = np.concatenate(list(found.blocks()))[:, 0]
    silent = np.argmax(np.abs(samples) > 0.05) / RATE
    assert silent == pytest.approx(0.5, abs=0.07)  # AAC has frames of 64 ms
    assert found.seconds in (None, pytest.approx(samples.size / RATE, abs=0.001))


@pytest.mark.parametrize("end", [1.1, 2])  # s
@pytest.mark.parametrize("name, codec", [("a.webm", "libopus"), ("a.mp4", "aac"), ("a.mka", "mp3")])
def test_packets_left_out_become_silence(tmp_path, name, codec, end):
    """Recorders of calls write no packets while nobody speaks. What follows must not be early."""
    write(tmp_path / f"whole-{name}", sine(440, 3, 48000)[:, 0], 48000, codec)
    with av.open(tmp_path / f"whole-{name}") as given, av.open(tmp_path / name, "w") as container:
        stream = container.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(audio=0):
            if packet.dts is not None and not 1 <= packet.pts * packet.time_base < end:
                packet.stream = stream
                container.mux(packet)
    with open_sound(tmp_path / name) as found:
        samples = np.concatenate(list(found.blocks()))[:, 0]
        assert samples.size / found.rate == pytest.approx(3, abs=0.1)
        assert found.seconds is None or samples.size / found.rate > 0.99 * found.seconds - 0.1
    loud = (np.abs(samples[:140000].reshape(-1, 100)).max(1) > 0.1).nonzero()[0] * 100 / 48000
    pause = np.argmax(np.diff(loud))
    np.testing.assert_allclose(loud[[pause, pause + 1]], [1, end], atol=0.06)


def test_wrong_times_of_packets_insert_no_hours(tmp_path):
    """A pause above an hour is an error in the file."""
    write(tmp_path / "whole.mka", sine(440, 3, 48000)[:, 0], 48000, "mp3")
    with av.open(tmp_path / "whole.mka") as given, av.open(tmp_path / "a.mka", "w") as container:
        stream = container.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(audio=0):
            if packet.dts is not None:
                late = 2 * 3600 * (packet.pts * packet.time_base > 1)
                packet.pts = packet.dts = packet.pts + int(late / packet.time_base)
                packet.stream = stream
                container.mux(packet)
    with open_sound(tmp_path / "a.mka") as found:
        assert sum(map(len, found.blocks())) / found.rate == pytest.approx(3, abs=0.1)


def test_five_kinds_of_other_files_are_named_the_rest_counted():
    for count in (5, 6):
        files = [Path(f"a.{number}") for number in range(count)]
        _, (line,) = folders.with_suffixes(files, [".wav"], "here")
        named = ".0 .1 .2 .3 .4" + " ..." * (count > 5)
        assert line == f"here: {count} files of other kinds ({named})"


@pytest.mark.parametrize("name, codec", [("a.ogg", "libopus"), ("a.mp3", "libmp3lame")])
def test_joined_streams_are_read_to_the_end(tmp_path, name, codec):
    for frequency, part in ((440, "b"), (880, "c")):
        write(tmp_path / (part + name), sine(frequency, 2, 48000)[:, 0], 48000, codec)
    whole = b"".join((tmp_path / (part + name)).read_bytes() for part in "bc")
    (tmp_path / name).write_bytes(whole)
    samples = decoded(tmp_path / name)
    assert samples.size / RATE == pytest.approx(4, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples[3 * RATE : 4 * RATE - 2000]))
    assert np.argmax(spectrum) * RATE / (RATE - 2000) == pytest.approx(880, abs=2)


@pytest.mark.parametrize("plausible, rate, channels", HEADERS)
def test_a_header_that_must_be_wrong_is_refused(tmp_path, plausible, rate, channels):
    """Converters have up to 768 kHz, microphone arrays up to 64 channels."""
    soundfile.write(tmp_path / "a.wav", np.zeros((100, channels)), rate)
    wrong = pytest.raises(UserError, match=f"header must be wrong .{rate} Hz and {channels} chan")
    with contextlib.nullcontext() if plausible else wrong, open_sound(tmp_path / "a.wav") as sound:
        assert (sound.rate, sound.channels) == (rate, channels)


def test_joined_wavs_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1), RATE, "PCM_16")
    (tmp_path / "b.wav").write_bytes(2 * (tmp_path / "a.wav").read_bytes())
    with pytest.raises(UserError, match="several sounds joined"):
        load(tmp_path / "b.wav")


def test_a_playlist_opens_no_other_file(tmp_path):
    write(tmp_path / "other.aac", sine(440, 1, 44100)[:, 0], 44100, "aac")
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2,", f"{tmp_path}/other.aac"]
    (tmp_path / "a.mp3").write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    with pytest.raises(UserError, match="not a sound file"):
        load(tmp_path / "a.mp3")


def test_an_m4a_of_an_interrupted_recorder_is_named(tmp_path):
    write(tmp_path / "a.m4a", sine(440, 1, 44100)[:, 0], 44100, "aac")
    content = (tmp_path / "a.m4a").read_bytes()
    (tmp_path / "a.m4a").write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(UserError, match=r"a.m4a: .*moov atom not found"):
        load(tmp_path / "a.m4a")


def test_a_folder_whose_files_cannot_be_mapped_is_named(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", noise(2), RATE)

    def refuse(*_, **__):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(sound_files.np, "memmap", refuse)
    with pytest.raises(OSError, match="cannot store the decoded sound here"):
        load(tmp_path / "a.wav", tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_disk_of_the_run_holds_the_decoded_sound(tmp_path):
    """Hours of sound may be larger than the system's folder of temporary files."""
    soundfile.write(tmp_path / "a.wav", noise(2), RATE)
    (tmp_path / "run").mkdir()
    sounds = load(tmp_path / "a.wav", tmp_path / "run")
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert len(sounds.samples) == 2 * RATE and f"{tmp_path}/run/" in mapped


def test_a_worker_needs_no_folder_of_the_run(tmp_path):
    """Only the chief of several workers creates it."""
    soundfile.write(tmp_path / "a.wav", noise(2), RATE)
    sounds = [load(tmp_path / "a.wav", folder).samples for folder in (tmp_path, tmp_path / "run")]
    np.testing.assert_array_equal(*sounds)
    assert not (tmp_path / "run").exists()


def test_a_video_without_sound_is_refused(tmp_path):
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("mpeg4", 25)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="contains no sound"):
        load(tmp_path / "a.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_long_compressed_sound_needs_little_memory(tmp_path):
    write(tmp_path / "a.mp3", np.tile(sine(440, 60, RATE)[:, 0], 3), RATE, "libmp3lame")
    used = []
    with open_sound(tmp_path / "a.mp3") as sound:
        for _ in sound.blocks():
            used.append(int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096)
    assert len(used) > 40 and max(used[20:]) - used[20] < 4e6  # all blocks have 12 MB


def test_channels_are_averaged(tmp_path):
    left, right = sine(300, 1, RATE)[:, 0], sine(700, 1, RATE)[:, 0]
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, "FLOAT")
    heard = decoded(tmp_path / "a.wav")
    np.testing.assert_allclose(heard, (left + right) / 2, atol=1e-6)


def test_all_files_get_one_level_and_no_file_is_left(tmp_path):
    for number, level in enumerate((1e-3, 0.05, 0.9)):
        with_silence = np.concatenate([noise(3, number, level / 4), np.zeros(2 * RATE)])
        soundfile.write(tmp_path / f"{number}.wav", with_silence, RATE, "FLOAT")
    before = sorted(tmp_path.iterdir())
    sounds = load(tmp_path, tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    for part in sounds.samples.reshape(3, -1):
        assert np.sqrt(np.mean(part[: 3 * RATE] ** 2)) == pytest.approx(RMS, rel=0.01)
    # A tenth of the sound without silence is held out, with the silence after it.
    assert "8.1 s of sound to learn from, 6.9 s held out" in sounds.summary


@pytest.mark.parametrize("quiet_db, counts", [(-40, True), (-60, False)])
def test_quiet_passages_count_for_the_level(tmp_path, quiet_db, counts):
    """Only parts 50 dB below the mean power are silence."""
    quiet = noise(2, 1, 0.1 * 10 ** (quiet_db / 20))
    soundfile.write(tmp_path / "a.wav", np.append(noise(2), quiet), RATE, "FLOAT")
    loud = load(tmp_path / "a.wav").samples[: 2 * RATE]
    expected = RMS * np.sqrt(2 if counts else 1)
    assert np.sqrt(np.mean(loud**2)) == pytest.approx(expected, rel=0.01)


def test_silence_is_never_drawn_but_all_sound_can_be(tmp_path):
    pieces = [np.zeros(5000), noise(1), np.zeros(40_000), noise(0.5, 1), 1e-5 * noise(2, 2)]
    pieces += [noise(0.4, 3), noise(3, 4)]
    soundfile.write(tmp_path / "a.wav", np.concatenate(pieces), RATE, "FLOAT")
    sounds = load(tmp_path / "a.wav")
    samples = np.array(sounds.samples)
    energy = np.append(0, np.cumsum(samples.astype(float) ** 2))
    level = 10 * np.log10((energy[WINDOW:] - energy[:-WINDOW]) / WINDOW / RMS**2 + 1e-20)
    training = starts(sounds.places["training"])
    assert level[training].min() >= -50
    allowed = np.isin(np.arange(level.size), training)
    end = sounds.places["training"][-1, 1] - 1
    full = np.flatnonzero(level[: end + 1] > -1)  # windows full of noise
    assert allowed[full].all()
    held_out = starts(sounds.places["held out"]).size
    assert held_out / (held_out + training.size) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("files", [1, 3, 5, 23])
def test_training_and_held_out_share_no_sample(tmp_path, files):
    lengths = {}
    for number in range(files):
        sound = noise(1.5 + 0.1 * number, number)
        soundfile.write(tmp_path / f"{number:02d}.wav", sound, RATE, "FLOAT")
        lengths[f"{number:02d}.wav"] = sound.size
    sounds = load(tmp_path)
    covered = {}
    for name, places in sounds.places.items():
        covered[name] = np.zeros(sounds.samples.size, bool)
        for first in starts(places):
            covered[name][first : first + WINDOW] = True
    assert not (covered["training"] & covered["held out"]).any()
    assert 0.02 < covered["held out"].mean() < 0.25
    assert (covered["training"] | covered["held out"]).mean() > 0.95
    # No window spans two files.
    edges = np.cumsum(list(lengths.values()))
    for places in sounds.places.values():
        first = starts(places)
        file_of_first, file_of_last = (
            np.searchsorted(edges, at, "right") for at in (first, first + WINDOW - 1)
        )
        np.testing.assert_array_equal(file_of_first, file_of_last)
    if files >= 5:  # whole files
        named = [name for name in lengths if name in sounds.summary]
        of_file = covered["held out"].nonzero()[0][[0, -1]]
        assert len(named) == max(1, round(files / 10))
        assert edges[list(lengths).index(named[0])] - lengths[named[0]] == of_file[0]
    seconds = sounds.provenance["training_seconds"], sounds.provenance["held_out_seconds"]
    assert sounds.provenance["files"] == files and sum(seconds) == pytest.approx(
        sounds.samples.size / RATE
    )
    # The long input is held out.
    every = np.lib.stride_tricks.sliding_window_view(sounds.samples, 64)
    (found,) = np.flatnonzero((every == sounds.long_sound[:64].astype(np.float32)).all(axis=1))
    assert covered["held out"][found : found + sounds.long_sound.size].all()
    assert WINDOW <= sounds.long_sound.size <= RATE


@pytest.mark.parametrize("files", [30, 40])
def test_three_held_out_files_are_named_the_others_not(tmp_path, files):
    for number in range(files):
        soundfile.write(tmp_path / f"{number}.wav", noise(0.15, number), RATE)
    named = re.search(r"held out \((.*)\)", load(tmp_path).summary)[1].split(", ")
    assert all((tmp_path / name).exists() for name in named[:3]) and len({*named[:3]}) == 3
    assert named[3:] == ["..."] * (files == 40)


def test_a_long_file_among_short_ones_is_not_held_out_whole(tmp_path):
    for number in range(5):  # whichever of the five would be held out
        for other in range(5):
            sound = noise(20 if other == number else 0.2, other)
            soundfile.write(tmp_path / f"{other}.wav", sound, RATE)
        found = load(tmp_path).provenance
        assert 0.05 < found["held_out_seconds"] / 20.8 < 0.2


def test_a_file_of_mostly_silence_may_be_held_out_whole(tmp_path):
    for number in range(5):  # whichever of the five is held out
        for other in range(5):
            sound = np.insert(noise(0.4, other), RATE // 5, np.zeros(4 * RATE * (other == number)))
            soundfile.write(tmp_path / f"{other}.wav", sound, RATE)
        assert re.search(r"held out \(\d\.wav\)", load(tmp_path).summary)


@pytest.mark.parametrize("files, seconds", [(2, 3), (9, 3), (9, 0.4)])
def test_copies_are_either_learned_from_or_held_out(tmp_path, files, seconds):
    """No stretch of sound is in both parts, whichever file it is from."""
    size = round(seconds * RATE)
    lengths = size + np.array([0, 0, 4000, 0])
    lengths[3] = min(size, 2 * RATE)
    for number in range(files):
        sound = noise(seconds, number)
        soundfile.write(tmp_path / f"{number}.a.wav", sound, RATE)
        soundfile.write(tmp_path / f"{number}.again.flac", 0.3 * sound, RATE)
        soundfile.write(tmp_path / f"{number}.encoded.ogg", np.pad(sound, (4000, 0)), RATE)
        soundfile.write(tmp_path / f"{number}.first.wav", sound[: lengths[3]], RATE)
    sounds, covered, total = load(tmp_path), {}, {}
    begins = np.cumsum(np.tile(lengths, files)) - np.tile(lengths, files)
    for name, places in sounds.places.items():
        covered[name], total[name] = np.zeros((files, size), bool), 0
        for first, end in places:
            file = np.searchsorted(begins, first, "right") - 1
            at = first - begins[file] - 4000 * (file % 4 == 2)
            covered[name][file // 4, max(at, 0) : at + end - first + WINDOW] = True
            total[name] += end - first + WINDOW
    assert not (covered["training"] & covered["held out"]).any()
    assert covered["training"].mean() > 0.6 and covered["held out"].any()
    assert sounds.provenance["held_out_seconds"] == pytest.approx(total["held out"] / RATE, rel=0.2)


def test_the_long_sound_is_of_one_file(tmp_path):
    """It includes the silence at its beginning if the rest is too short."""
    for number in range(5):
        sound = np.append(np.zeros(RATE // 4), noise(0.5, number))
        soundfile.write(tmp_path / f"{number}.wav", sound, RATE)
    sounds = load(tmp_path)
    assert any(np.array_equal(sounds.long_sound, file) for file in sounds.samples.reshape(5, -1))


def test_the_long_sound_begins_where_its_file_begins_to_sound(tmp_path):
    """A window of 64 ms may begin in the silence before."""
    for number in range(5):
        sound = np.concatenate([np.zeros(RATE), noise(2, number), np.zeros(RATE)])
        soundfile.write(tmp_path / f"{number}.wav", sound, RATE, "FLOAT")
    long_sound = load(tmp_path).long_sound
    assert long_sound.size == RATE
    assert 0 <= np.argmax(long_sound != 0) < WINDOW and long_sound[WINDOW:].all()


def test_windows_follow_from_the_seed_and_are_uniform(tmp_path):
    samples = np.arange(10_000, dtype=np.float32)
    places = np.array([[0, 100], [500, 2500], [9000, 9001]])

    @tf.function
    def draw(seed):
        return sound_files.random_windows(samples, places, 20_000, 64, seed)

    windows = draw(tf.constant((1, 2))).numpy()
    np.testing.assert_array_equal(windows, draw(tf.constant((1, 2))))
    assert np.any(windows != draw(tf.constant((1, 3))))
    np.testing.assert_array_equal(windows - windows[:, :1], np.tile(np.arange(64), (20_000, 1)))
    first = windows[:, 0].astype(int)
    assert np.isin(first, starts(places)).all()
    rank = np.searchsorted(starts(places), first)
    assert scipy.stats.kstest((rank + 0.5) / 2101, "uniform").pvalue > 1e-3
    assert (first == 9000).any()


@posix
def test_links_names_and_folders(tmp_path):
    music = tmp_path / "music"
    (music / "one" / "two").mkdir(parents=True)
    soundfile.write(music / "one" / "two" / "-b c.WAV", noise(2, 1), RATE)
    soundfile.write(music / "ü.flac", noise(2, 2), RATE)
    (music / "cover.jpg").write_bytes(b"no sound")
    (music / "again.wav").symlink_to(music / "one" / "two" / "-b c.WAV")
    (music / "one" / "back").symlink_to(music)
    (tmp_path / "link").symlink_to(music)
    sounds = load(tmp_path / "link")
    assert sounds.samples.size == 4 * RATE  # each once
    assert sounds.skipped == [f"{tmp_path / 'link'}: 1 files of other kinds (.jpg)"]
    assert load(music / "again.wav").samples.size == 2 * RATE


def header(rate, channels):
    """Return the bytes of a WAV of one second whose header gives this rate and channel count."""
    riff = struct.pack("<4sI4s", b"RIFF", 36 + 32000, b"WAVE")
    sizes = channels, rate, rate * channels * 2 % 2**32, 2 * channels, 16
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, *sizes)
    whole = riff + form + struct.pack("<4sI", b"data", 32000)
    return whole + np.int16(3000 * noise(1)).tobytes()


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder of files that cannot be used."""
    folder = tmp_path_factory.mktemp("bad")
    contents = {
        "empty.wav": b"",
        "text.wav": b"These are only words.\n" * 200,
        "rate 0.wav": header(0, 1),
        "rate 10 MHz.wav": header(10_000_000, 1),
        "1000 channels.wav": header(16000, 1000),
        "header without frames.mp3": b"\xff\xfb\x90\x00" + bytes(3000),
    }
    signals = {
        "no samples.wav": np.zeros(0),
        "short.wav": noise(0.1),
        "silent.wav": np.zeros(3 * RATE),
        "not a number.wav": np.append(noise(3), np.nan),
        "infinite.wav": np.insert(noise(3), 70_000 % RATE, np.inf),
    }
    for name, signal in signals.items():
        soundfile.write(folder / name, signal, RATE, "FLOAT")
    soundfile.write(folder / "whole.flac", noise(3), RATE)
    contents["cut short.flac"] = (folder / "whole.flac").read_bytes()[:30_000]
    contents["truncated header.wav"] = (folder / "silent.wav").read_bytes()[:20]
    (folder / "whole.flac").unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    return folder


WORDS = {
    "empty.wav": "not a sound file",
    "text.wav": "not a sound file",
    "rate 0.wav": "not a sound file",
    "rate 10 MHz.wav": "10000000 Hz",
    "1000 channels.wav": "1000 channels",
    "header without frames.mp3": "not a sound file",
    "no samples.wav": "too short (no samples)",
    "short.wav": "too short (0.1 s)",
    "silent.wav": "silent",
    "not a number.wav": "NaN or Inf",
    "infinite.wav": "NaN or Inf",
    "cut short.flac": "damaged",
    "truncated header.wav": "damaged",
    "gone.wav": "No such file",
}


@pytest.mark.parametrize("name", WORDS)
def test_an_error_names_the_file_and_the_problem(bad, name, capfd):
    """Nothing else is printed. libmpg123 comments on the MP3."""
    with pytest.raises(UserError) as refused:
        load(bad / name)
    message = str(refused.value)
    assert name in message and "\n" not in message
    assert WORDS[name] in message.replace(str(bad / name), "")
    assert not capfd.readouterr().err


@posix
def test_bad_files_in_a_folder_are_skipped(bad, tmp_path):
    with pytest.raises(UserError, match=f"the first of {len(WORDS)} problems"):
        load(bad)
    for file in bad.iterdir():
        os.symlink(file, tmp_path / file.name)
    for number in range(2):
        soundfile.write(tmp_path / f"good {number}.wav", noise(2, number), RATE)
    sounds = load(tmp_path)
    assert sounds.samples.size == 4 * RATE
    assert sorted(line.split(": ")[0] for line in sounds.skipped) == sorted(
        str(tmp_path / name) for name in WORDS
    )


@posix
def test_missing_or_insufficient_sound_is_refused(tmp_path):
    for path in ("missing", ""):
        with pytest.raises(UserError, match="No such file"):
            load(path)
    with pytest.raises(UserError, match="no usable sound; no files"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UserError, match="not a file"):
        load(tmp_path / "pipe.wav")
    soundfile.write(tmp_path / "one.wav", noise(0.18), RATE)
    with pytest.raises(UserError, match="not enough sound"):
        load(tmp_path / "one.wav")


def test_a_compressed_bomb_does_not_fill_the_disk(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "bomb.flac", np.zeros(60 * RATE), RATE)  # 60 s in a few kB
    soundfile.write(tmp_path / "good.wav", noise(3), RATE)
    monkeypatch.setattr(sound_files, "MAX_HOURS", 10 / 3600)
    sounds = load(tmp_path)
    assert sounds.samples.size == 3 * RATE
    (line,) = sounds.skipped
    assert "bomb.flac" in line and "hours" in line


def test_the_limit_of_hours_is_for_all_files_together(tmp_path, monkeypatch):
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", noise(4, number), RATE)
    monkeypatch.setattr(sound_files, "MAX_HOURS", 10 / 3600)
    sounds = load(tmp_path)
    assert sounds.samples.size == 8 * RATE
    (line,) = sounds.skipped
    assert "2.wav: more than" in line


def mp3(path, signal, mode="VARIABLE"):
    with soundfile.SoundFile(path, "w", RATE, 1, compression_level=0.5, bitrate_mode=mode) as file:
        file.write(signal)
    return path.read_bytes()


def without_xing(content):
    """Remove from an MP3 the frame that gives its length, which streams do not have."""
    first = re.search(rb"\xff[\xf2\xf3\xfb]", content).start()
    second = content.index(content[first : first + 2], first + 150)
    return content[second:]


def test_an_mp3_without_its_length_is_read_to_the_end(tmp_path):
    # Few bytes, then many.
    quiet_then_loud = np.concatenate([noise(4, level=1e-4), noise(6, 1, 0.2)])
    whole = mp3(tmp_path / "whole.mp3", quiet_then_loud)
    pictures = b"ID3\x03\0\0" + bytes([0, 6, 0, 0]) + b"APIC" + bytes(6 * 128 * 128 - 4)
    contents = {
        "whole": (whole, 10),
        "streamed": (without_xing(whole), 10),
        "padded": (bytes(500) + without_xing(whole), 10),
        "pictures": (pictures + without_xing(whole), 10),
        "tagged": (without_xing(whole) + b"TAG" + bytes(125), 10),
        "joined": (whole + whole, 20),
    }
    for name, (content, seconds) in contents.items():
        (tmp_path / "a.mp3").write_bytes(content)
        heard = sum(block.size for block in sound_files.decode(tmp_path / "a.mp3", RATE))
        assert heard / RATE == pytest.approx(seconds, abs=0.25), name


@pytest.mark.parametrize("size", [0, 200_000])  # bytes, of 320,000
@pytest.mark.parametrize("endian", ["little", "big"])
def test_a_wav_whose_recorder_crashed_is_refused(tmp_path, endian, size):
    signal = noise(10)
    signal[:8000] = 0  # silence is no padding
    soundfile.write(tmp_path / "a.wav", signal, RATE, "PCM_16", endian=endian.upper())
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = size.to_bytes(4, endian)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UserError, match=r"more samples than its header counts.*ffmpeg"):
        decoded(tmp_path / "a.wav")


def test_a_wav_may_be_padded_with_zeros(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1), RATE, "PCM_16")
    with open(tmp_path / "a.wav", "ab") as file:
        file.write(bytes(100_000))
    assert decoded(tmp_path / "a.wav").size == RATE


def with_data_size(path, signal, size):
    """Write a WAV of 16 bits whose header states `size` bytes of samples."""
    soundfile.write(path, signal, RATE, "PCM_16")
    true, stated = (each.to_bytes(4, "little") for each in (2 * signal.size, size))
    path.write_bytes(path.read_bytes().replace(b"data" + true, b"data" + stated))


def test_a_wav_without_the_samples_that_it_counts_is_empty(tmp_path):
    with_data_size(tmp_path / "a.wav", noise(1), 1000)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:44])  # the header
    with open_sound(tmp_path / "a.wav") as sound:
        assert sound.seconds is None and not list(sound.blocks())


@pytest.mark.parametrize("size", [UNKNOWN, 2**31 - 2**12, 2**31, 2**32 - 1])  # SoX, arecord, FFmpeg
def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path, size):
    """Programs that write to a pipe state one of the greatest lengths."""
    signal = noise(1)
    with_data_size(tmp_path / "a.wav", signal, size)
    with open_sound(tmp_path / "a.wav") as sound:
        samples = np.concatenate(list(sound.blocks()))
    np.testing.assert_allclose(samples[:, 0], signal, atol=1 / 32768)
    assert sound.seconds is None


def test_a_truncated_long_wav_states_its_length(tmp_path):
    size = 2**31 - 2**20
    with_data_size(tmp_path / "a.wav", noise(1), size)
    with open_sound(tmp_path / "a.wav") as sound:
        assert sound.seconds == pytest.approx(size / 2 / RATE, rel=1e-3)


def test_few_bytes_after_the_samples_of_a_wav_are_not_sound(tmp_path):
    """Some programs append a note without a chunk. A recorder loses more than 2 s of sound."""
    signal = noise(1)
    soundfile.write(tmp_path / "a.wav", signal, RATE, "PCM_16")
    with open(tmp_path / "a.wav", "ab") as file:
        file.write(np.random.default_rng(0).integers(128, 256, 60_000, np.uint8).tobytes())
    assert decoded(tmp_path / "a.wav").size == signal.size


@pytest.mark.parametrize("tag", [b"LIST", b"ID3\x04", b"\0id3 "])
def test_tags_after_the_samples_of_a_wav_are_not_sound(tmp_path, tag):
    signal = noise(1)
    soundfile.write(tmp_path / "a.wav", signal, RATE, "PCM_16")
    pictures = np.random.default_rng(0).bytes(100_000)
    with open(tmp_path / "a.wav", "ab") as file:
        file.write(tag + len(pictures).to_bytes(4, "little") + pictures)
    heard = decoded(tmp_path / "a.wav")
    assert heard.size == signal.size


def test_channels_that_cancel_are_refused(tmp_path):
    tone = sine(440, 1, RATE)[:, 0]
    # The mean of the third has 9% of the power that it would have with the first channel alone.
    refused = (0, (1, -0.99)), (0.1, (-0.99, 1)), (0, (1, -0.7)), (0, (0.2, 1, -1.1))
    for offset, factors in refused:
        soundfile.write(tmp_path / "a.wav", np.outer(tone, factors) + offset, RATE, "FLOAT")
        with pytest.raises(UserError, match=r"a\.wav: its channels cancel"):
            decoded(tmp_path / "a.wav")
    # Not much cancels here: 12% remain. If only one channel sounds, nothing does.
    for factors in ((1, -0.65), (1, 0, 0, 0, 0, 0)):
        soundfile.write(tmp_path / "a.wav", np.outer(tone, factors), RATE, "FLOAT")
        np.testing.assert_allclose(decoded(tmp_path / "a.wav"), np.mean(factors) * tone, atol=1e-6)


@pytest.mark.parametrize("offset, kept", [(0.005, 0.005), (0.02, 0)])
def test_an_offset_above_one_percent_is_removed(tmp_path, offset, kept):
    """The network would learn it. A smaller one is nothing but the sound's own mean."""
    sound = noise(3)
    sound += offset * sound.std() - sound.mean()
    soundfile.write(tmp_path / "a.wav", sound, RATE, "FLOAT")
    loaded = np.array(load(tmp_path / "a.wav").samples, float)
    assert loaded.mean() / RMS == pytest.approx(kept, abs=1e-3)
    assert np.sqrt(np.mean(loaded**2)) == pytest.approx(RMS, rel=1e-3)


@pytest.mark.parametrize("while_sounding, in_silence", [(0.0, 0.05), (0.05, 0.05), (-0.05, -0.05)])
def test_silence_with_an_offset_is_silence(tmp_path, while_sounding, in_silence):
    tone = sine(440, 1.5, RATE)[:, 0] + while_sounding
    sound = np.concatenate([tone, np.full(3 * RATE, in_silence), tone])
    soundfile.write(tmp_path / "a.wav", sound, RATE, "FLOAT")
    sounds = load(tmp_path / "a.wav")
    for places in sounds.places.values():
        first = starts(places)
        assert not ((first >= 1.5 * RATE) & (first + WINDOW <= 4.5 * RATE)).any()
    tones = np.array(sounds.samples[: int(1.5 * RATE)], float)
    assert abs(tones.mean()) < 0.01 * RMS and tones.std() == pytest.approx(RMS, rel=0.02)
    soundfile.write(tmp_path / "b.wav", np.full(3 * RATE, in_silence), RATE, "FLOAT")
    with pytest.raises(UserError, match="silent"):
        load(tmp_path / "b.wav")


@pytest.mark.parametrize("level_db, is_sound", [(-97, True), (-103, False)])
def test_a_sound_100_db_below_full_scale_is_silence(tmp_path, level_db, is_sound):
    """A quieter one is only dither. A soft recording of 24 bits may be 97 dB below."""
    soundfile.write(tmp_path / "a.wav", noise(1, level=10 ** (level_db / 20)), RATE, "PCM_24")
    with contextlib.nullcontext() if is_sound else pytest.raises(UserError, match="silent"):
        assert load(tmp_path / "a.wav").samples.std() == pytest.approx(RMS, rel=0.02)


def test_samples_without_a_header_are_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(range(256)) * 100)
    with pytest.raises(UserError, match=r"a.raw: not a sound file.*import it as raw data"):
        list(sound_files.decode(tmp_path / "a.raw", RATE))


def test_an_m4a_that_states_no_length_is_read_to_its_end(tmp_path):
    """A recorder may leave the lengths at 0."""
    write(tmp_path / "a.m4a", sine(440, 1, RATE)[:, 0], RATE, "aac")
    content = bytearray((tmp_path / "a.m4a").read_bytes())
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = content.index(box) + offset
        content[at : at + 4] = bytes(4)
    (tmp_path / "a.m4a").write_bytes(content)
    with open_sound(tmp_path / "a.m4a") as sound:
        samples = np.concatenate(list(sound.blocks()))
    assert sound.seconds is None
    assert len(samples) / RATE == pytest.approx(1, abs=0.15)  # with the encoder's padding
