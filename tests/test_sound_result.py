"""What a result keeps of its source besides the samples, or says is lost."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from compressed import write

from files import sound_reader
from files.sound_reader import open_sound
from files.sound_result import create, extras, rounded
from harness import UserError
from harness.result_files import replacing

RATE = 16000


def rewritten(source, name):
    """Write a sound to another file in its folder. Returns its path and what is lost."""
    path = source.with_name(name)
    with open_sound(source) as sound:
        with create(path, sound, path) as file:
            for block in sound.blocks():
                file.write(rounded(block, file.subtype)[0])
    return path, sorted(extras(source) - extras(path))


def with_chunks(path, order, chunks):
    """Append chunks {name: contents} to a WAV or AIFF, and correct its length."""
    content = bytearray(path.read_bytes())
    for name, contents in chunks.items():
        content += bytes(len(content) % 2) + name + len(contents).to_bytes(4, order) + contents
    content[4:8] = (len(content) - 8).to_bytes(4, order)
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_lost_chunks_of_wav_and_aiff_are_named(tmp_path, name):
    with soundfile.SoundFile(tmp_path / name, "w", RATE, 1, "PCM_16") as file:
        file.title = "A title"
        file.write(np.zeros(999))
    assert rewritten(tmp_path / name, f"b-{name}")[1] == []
    order = "little" if name == "a.wav" else "big"
    # A sampler's loops, peaks of the old samples, and a chunk of another program.
    with_chunks(tmp_path / name, order, {b"smpl": bytes(60), b"PEAK": bytes(16), b"odd1": b"abc"})
    assert rewritten(tmp_path / name, f"b-{name}")[1] == ["chunk odd1", "chunk smpl"]


def test_a_lost_speaker_layout_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((100, 6)), RATE, "PCM_16", format="WAVEX")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = 0x60F.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    assert rewritten(tmp_path / "a.wav", "b.wav")[1] == ["speaker layout 5.1(side)"]


@pytest.mark.parametrize("name, codec", [("a.flac", "flac"), ("a.mp3", "libmp3lame")])
def test_what_is_not_copied_is_named(tmp_path, name, codec):
    with av.open(tmp_path / name, "w") as container:
        container.metadata.update({"title": "T", "composer": "C"})
        sound, picture = container.add_stream(codec, RATE), container.add_stream("png", 1)
        picture.width = picture.height = 16
        picture.pix_fmt, picture.disposition = "rgb24", av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.int16), "s16", "mono")
        frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for stream, content in ((picture, image), (sound, frame)):
            container.mux(stream.encode(content) + stream.encode(None))
    for result in (f"b-{name}", "b.wav"):
        path, gone = rewritten(tmp_path / name, result)
        assert gone == ["pictures", "tag composer"]
        with av.open(path) as container:
            assert container.metadata["title"] == "T"


def test_all_common_tags_of_a_compressed_file_are_kept(tmp_path):
    names = "title artist album date genre comment copyright license".split()
    tags = {name: f"the {name}" for name in names} | {"track": "7"}
    write(tmp_path / "a.opus", np.zeros(4800), 48000, "libopus", tags=tags)
    path, gone = rewritten(tmp_path / "a.opus", "b.opus")
    assert gone == []
    with soundfile.SoundFile(path) as file:
        found = file.copy_metadata()
    assert {name: found[name] for name in names} == {name: tags[name] for name in names}
    assert found["tracknumber"] == "7"


@pytest.mark.parametrize("codec, bits", [("alac", 24), ("alac", 16), ("flac", 24)])
def test_lossless_samples_become_a_wav_without_loss(tmp_path, codec, bits):
    levels = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), RATE)
    kind = {16: ("s16", np.int16), 24: ("s32", np.int32)}[bits]
    frame = av.AudioFrame.from_ndarray(
        (levels << (8 if bits == 24 else 0)).astype(kind[1])[None], kind[0], "mono"
    )
    frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    path = tmp_path / ("a.m4a" if codec == "alac" else "a.mka")
    with av.open(path, "w", format="ipod" if codec == "alac" else "matroska") as container:
        stream = container.add_stream(codec, RATE, layout="mono")
        stream.format = kind[0] + ("p" if codec == "alac" else "")
        container.mux(stream.encode(frame) + stream.encode(None))
    result, _ = rewritten(path, "b.wav")
    np.testing.assert_array_equal(soundfile.read(result)[0] * 2.0 ** (bits - 1), levels)
    if codec == "alac":
        assert soundfile.info(result).subtype == "FLOAT"


def test_channels_of_vorbis_have_the_order_of_a_wav(tmp_path):
    """FFmpeg plays the source and the result in the same order."""
    time = np.arange(RATE) / RATE
    signal = 0.1 * np.sin(2 * np.pi * time[:, None] * (200 + 200 * np.arange(6)))
    # Vorbis: front left, center, front right, back left, back right, bass. Section 4.3.9 of its
    # specification. A WAV: front left, front right, center, bass, back left, back right.
    soundfile.write(tmp_path / "a.ogg", signal[:, [0, 2, 1, 4, 5, 3]], RATE)
    result, _ = rewritten(tmp_path / "a.ogg", "b.wav")
    heard = soundfile.read(result)[0][: RATE // 2]
    peaks = np.argmax(np.abs(np.fft.rfft(heard, axis=0)), 0) * 2
    np.testing.assert_array_equal(peaks, 200 + 200 * np.arange(6))
    with pytest.raises(UserError, match=r"6 channels .*not written as .ogg.*\.wav"):
        rewritten(tmp_path / "a.ogg", "b.ogg")


def test_the_content_decides_not_the_suffix(tmp_path):
    soundfile.write(tmp_path / "x.mp3", np.zeros(RATE), RATE)
    for name in ("a.wav", "a.flac"):
        (tmp_path / name).write_bytes((tmp_path / "x.mp3").read_bytes())
    result, _ = rewritten(tmp_path / "a.wav", "b.wav")
    assert result.read_bytes()[:4] == b"RIFF"
    with pytest.raises(UserError, match=r"a.flac: MP3 .*not written as .flac.*\.wav"):
        rewritten(tmp_path / "a.flac", "b.flac")


def test_other_sound_tracks_are_named(tmp_path):
    with av.open(tmp_path / "a.mp4", "w") as container:
        streams = [container.add_stream("aac", RATE, layout="mono") for _ in range(2)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.float32), "fltp", "mono")
            frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(stream.encode(frame) + stream.encode(None))
    assert rewritten(tmp_path / "a.mp4", "b.wav")[1] == ["other sound tracks"]


def test_a_full_disk_is_named_for_an_m4a(tmp_path, full_disk):
    """FFmpeg hides the system's error behind one with a number of its own."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((64_000, 1))
    write(tmp_path / "a.m4a", noise[:, 0], 16000, "alac")
    with open_sound(tmp_path / "a.m4a") as sound, full_disk(20_000):
        with pytest.raises(OSError, match=r"File too large.*b\.m4a"):
            with replacing(tmp_path / "b.m4a") as path:
                with create(path, sound, tmp_path / "b.m4a") as file:
                    file.write(noise)
    assert [path.name for path in tmp_path.iterdir()] == ["a.m4a"]


def test_all_lost_items_are_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(99), RATE)
    with_chunks(tmp_path / "a.wav", "little", {b"odd%d" % n: b"abcd" for n in range(9)})
    gone = rewritten(tmp_path / "a.wav", "b.wav")[1]
    assert gone == [f"chunk odd{number}" for number in range(9)]


@pytest.mark.parametrize("codec", ["alac", "aac"])
def test_an_m4a_has_the_length_of_all_its_blocks(tmp_path, monkeypatch, codec):
    """It records the time of each block, without which it would have gaps or be cut."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(10_007)
    write(tmp_path / "a.m4a", noise, RATE, codec)
    monkeypatch.setattr(sound_reader, "FRAMES_PER_BLOCK", 1500)
    result, _ = rewritten(tmp_path / "a.m4a", "b.m4a")
    monkeypatch.undo()
    sounds, seconds = [], []
    for path in (tmp_path / "a.m4a", result):
        with open_sound(path) as sound:
            sounds.append(np.concatenate(list(sound.blocks()))[:, 0])
            seconds.append(sound.seconds)
    assert sounds[0].size == sounds[1].size >= noise.size
    assert seconds == pytest.approx([sounds[0].size / RATE] * 2, abs=0.5 / RATE)
    error = np.std(sounds[1] - sounds[0])
    assert error < (1e-9 if codec == "alac" else 0.02)


def test_the_bit_rate_of_an_aac_grows_with_its_channels(tmp_path):
    """Less than twofold here, because the channels are equal."""
    noise, sizes = 0.1 * np.random.default_rng(0).standard_normal(88_200), []
    for name, layout in (("1.m4a", "mono"), ("2.m4a", "stereo")):
        write(tmp_path / name, noise, 44_100, "aac", layout)
        sizes.append(rewritten(tmp_path / name, f"b-{name}")[0].stat().st_size)
    assert sizes[1] > 1.3 * sizes[0]


def test_chunks_that_only_make_room_are_not_missed(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(99), RATE)
    empty = dict.fromkeys((b"JUNK", b"junk", b"PAD ", b"FLLR"), bytes(28))
    with_chunks(tmp_path / "a.wav", "little", empty)
    assert rewritten(tmp_path / "a.wav", "b.wav")[1] == []


def test_lost_markers_are_named(tmp_path):
    with av.open(tmp_path / "a.mka", "w") as container:
        sound = container.add_stream("flac", RATE, layout="mono")
        marker = {"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {}}
        container.set_chapters([marker])
        frame = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.int16), "s16", "mono")
        frame.rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(sound.encode(frame) + sound.encode(None))
    assert rewritten(tmp_path / "a.mka", "b.wav")[1] == ["markers"]
