"""Restoring sound files: gaps, levels, formats, and the samples that are kept."""

import contextlib
import os
import re
import sys
import types

import av
import numpy as np
import pytest
import soundfile
from compressed import write
from hypothesis import given
from hypothesis import strategies as st

import audio_utils
from files import sound_reader
from files.gap_labels import Labels, read_gaps, read_labels
from files.model_file import Restorer
from files.restore_sound import _decoded, restore_sound
from harness import UserError
from kind import kind_of
from signals.fill_gaps import fill
from signals.gaps import clicks, find_gaps, inside

RATE = 16000


def sinusoids(windows, observed):
    """A perfect model of one sinusoid per window: (B, N), (B, N) -> (B, N).

    Its frequency is the peak of a parabola through the highest values of the spectrum. Its
    amplitude and phase are fitted by least squares to the observed samples.
    """
    windows, known = np.asarray(windows, float), np.asarray(observed) == 1
    spectra, size = np.abs(np.fft.rfft(windows, 2**12)), windows.shape[1]
    highest = np.clip(spectra.argmax(1), 1, 2**11 - 1)
    left, peak, right = spectra[np.arange(len(windows)), np.add(highest, [[-1], [0], [1]])]
    bend = np.maximum(2 * peak - left - right, 1e-12)
    frequency = (highest + np.clip((right - left) / (2 * bend), -1, 1)) / 2**12
    angle = 2 * np.pi * frequency[:, None] * np.arange(size)
    basis = np.stack([np.sin(angle), np.cos(angle)], 1)  # (B, 2, N)
    transposed = (basis * known[:, None]).mT
    weights = windows[:, None] @ transposed @ np.linalg.pinv(basis @ transposed)
    return (weights @ basis)[:, 0]


def stand_in(reconstruct, **metadata):
    return Restorer(reconstruct, 1024, kind_of({"sample_rate": RATE, **metadata}, 1024))


def tone_with_gaps(rate, seconds=1.0, frequency=440.0, gap=0.01):
    """Return a tone, the tone with a gap every 0.1 s, and the mask of the gaps."""
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * frequency * time + 0.3)
    gaps = np.mod(time - 0.05, 0.1) < gap
    return tone, tone * ~gaps, gaps


@pytest.mark.parametrize(
    "name, rate, channels, subtype",
    [
        ("a.wav", 16000, 1, "PCM_16"),
        ("a.wav", 8000, 1, "PCM_U8"),
        ("a.flac", 44100, 2, "PCM_24"),
        ("a.wav", 48000, 3, "FLOAT"),
        ("a.aiff", 11025, 1, "PCM_16"),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
def test_a_tone_is_restored_at_any_rate_in_its_format(
    tmp_path, name, rate, channels, subtype, keep
):
    source, result = tmp_path / name, tmp_path / f"restored-{name}"
    seconds = 0.3003  # not a multiple of windows or hops
    parts = [tone_with_gaps(rate, seconds, 440.0 * (1 + channel)) for channel in range(channels)]
    tone, chopped, gaps = (np.stack(part, 1) for part in zip(*parts))
    soundfile.write(source, chopped, rate, subtype=subtype)
    line = restore_sound(stand_in(sinusoids), source, result, keep=keep)
    before, after = soundfile.info(source), soundfile.info(result)
    for fact in ("samplerate", "channels", "frames", "format", "subtype"):
        assert getattr(after, fact) == getattr(before, fact)
    assert f"{3 * channels} gaps" in line and "10." in line
    restored, _ = soundfile.read(result, always_2d=True)
    given, _ = soundfile.read(source, always_2d=True)
    assert audio_utils.snr_db(tone[gaps], restored[gaps]) > (25 if subtype == "PCM_U8" else 30)
    if keep:
        np.testing.assert_array_equal(restored[~gaps], given[~gaps])
        # No click: the steps at the gaps' edges are those of the tones, plus 0.01 (0.02 at 8 bits).
        steps, steepest = (np.abs(np.diff(part, axis=0)).max(0) for part in (restored, tone))
        assert (steps < steepest + (0.02 if subtype == "PCM_U8" else 0.01)).all()


def test_gaps_in_a_lossy_file_are_read_from_labels(tmp_path):
    tone, chopped, gaps = tone_with_gaps(44100)
    starts, ends = np.flatnonzero(np.diff(gaps.astype(int))).reshape(-1, 2).T / 44100
    labels = tmp_path / "labels.txt"
    lines = [f"{a:.6f}\t{b:.6f}\tdropout" for a, b in zip(starts, ends)]  # as Audacity exports them
    # In any order, and one gap inside another.
    labels.write_text("\n".join(["# start end\n", *reversed(lines), "0.0501, 0.0502"]))
    for name in ("a.ogg", "a.mp3"):
        soundfile.write(tmp_path / name, chopped, 44100)
        restore_sound(
            stand_in(sinusoids), tmp_path / name, tmp_path / f"b-{name}", read_labels(labels)
        )
        restored, rate = soundfile.read(tmp_path / f"b-{name}")
        given, _ = soundfile.read(tmp_path / name)
        assert rate == 44100 and restored.size == given.size == tone.size
        assert audio_utils.snr_db(tone[gaps], restored[gaps]) > 20
        before, after = (soundfile.info(tmp_path / file) for file in (name, f"b-{name}"))
        assert after.subtype == before.subtype


@pytest.mark.parametrize(
    "line", ["1.0", "one, two", "0.5 0.4", "-1, 0.2", "0.9, 1.1", "nan, 0.5", "0.1, inf"]
)
def test_a_line_that_gives_no_gap_is_refused(tmp_path, line):
    (tmp_path / "gaps.csv").write_text(f"0.1,0.2\n{line}\n")
    with pytest.raises(UserError, match=r"gaps.csv: line 2"):
        read_gaps(read_labels(tmp_path / "gaps.csv"), RATE, RATE)


@given(st.sampled_from([8000, 11025, 44100, 48000]), st.integers(0, 10**6), st.integers(1, 10**5))
def test_labels_give_the_nearest_samples(rate, start, size):
    times = [f"{sample / rate:.6f}" for sample in (start, start + size)]  # as Audacity writes them
    labels = Labels("gaps", [" ".join(times)])
    assert read_gaps(labels, rate, 2 * 10**6).tolist() == [[start, start + size]]


def find(signal, rate=RATE, bits=16):
    """Return the gaps and silences in a signal (T,), rounded to this number of bits."""
    levels = 2.0 ** (bits - 1)
    values = np.round(signal * levels) / levels

    def read(first, end):
        assert 0 <= first < end <= signal.size
        return values[first:end]

    return find_gaps(read, signal.size, rate, 0.064 * rate, step=1 / levels)[:2]


def test_gaps_are_found_to_the_sample_wherever_pieces_end(monkeypatch):
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000)
    expected = [[3, 100], [4000, 5000], [5001, 5100], [19_900, 19_999]]
    for start, end in expected:
        signal[start:end] = 0
    signal[6995:7005] = 0  # too short, and in two pieces
    signal[10_000:12_000] = 0  # too long for a gap
    for block in (64, 1000, 5000, 1 << 16):
        monkeypatch.setattr("signals.gaps.PIECE", block)
        found, silences = find(signal, bits=32)
        assert found.tolist() == expected and silences.tolist() == [[10_000, 12_000]]


def test_blocks_of_any_size_have_the_same_gaps(tmp_path):
    starts, lengths = np.random.default_rng(0).integers([[0], [1]], [[900], [99]], (2, 40))
    gaps = np.stack([starts, starts + lengths], 1)
    (tmp_path / "gaps").write_text("".join(f"{start} {end}\n" for start, end in gaps))
    expected = np.zeros(1000, bool)
    for start, end in gaps:
        expected[start:end] = True
    stretches = read_gaps(read_labels(tmp_path / "gaps"), 1, 1000)
    for size in (1, 7, 100, 1000):
        blocks = [
            inside(stretches, first, min(first + size, 1000)) for first in range(0, 1000, size)
        ]
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
    assert not inside(np.zeros((0, 2), int), 5, 9).any()


# Triangular dither, and the error filter of Lipshitz, Vanderkooy and Wannamaker 1991, JAES 39(11),
# table 1 (FIR of order 5), which editors use for noise shaping.
SHAPED = 1, -2.033, 2.165, -1.959, 1.590, -0.6149


@pytest.mark.parametrize("filtered", [(1,), SHAPED])
@pytest.mark.parametrize("bits", [16, 24])
def test_gaps_filled_with_dither_are_found(bits, filtered):
    rng, step = np.random.default_rng(0), 2.0 ** (1 - bits)
    signal = 0.1 * np.sin(2 * np.pi * 300 * np.arange(8 * RATE) / RATE + 0.3)
    signal += 0.02 * rng.standard_normal(signal.size)
    gaps = signal.reshape(-1, RATE // 4)
    gaps[:, 1000:1500] = 0
    dither = rng.random(signal.size) - rng.random(signal.size)
    dither += rng.random(signal.size) - 0.5  # the error of rounding
    found, _ = find(signal + step * np.convolve(dither, filtered, "same"), bits=bits)
    expected = 4000 * np.arange(len(gaps))[:, None] + [1000, 1500]
    assert found.shape == expected.shape and abs(found - expected).max() <= 2
    # A quiet passage, or dither in a pause between fades, has no such jumps.
    signal *= 0.5 + 0.5 * np.cos(2 * np.pi * 4 * np.arange(signal.size) / RATE)
    gaps[:, 1000:1500] = gaps[:, 1500:2000]
    assert not len(find(signal + step * np.convolve(dither, filtered, "same"), bits=bits)[0])


def test_gaps_of_two_milliseconds_filled_with_dither_are_found():
    """The shortest have 16 samples."""
    rng, signal = np.random.default_rng(0), np.random.default_rng(1).uniform(-0.5, 0.5, RATE)
    expected = 1000 * np.arange(1, 16)[:, None] + [0, 32]
    for first, end in expected:
        signal[first:end] = rng.integers(-2, 3, 32) / 2**15
    assert find(signal)[0].tolist() == expected.tolist()


def test_silence_and_quiet_passages_are_no_gaps():
    time = np.arange(2 * RATE) / RATE
    quiet = 0.0002 * np.cos(2 * np.pi * 20 * time)  # 6 levels of 16 bits: at 0 for milliseconds
    signal = np.where(time < 1, 0.5 * np.sin(2 * np.pi * 400 * time + 0.3), quiet)
    signal[:300] = signal[4000:6000] = signal[-300:] = 0
    gaps, silences = find(signal)
    assert not len(gaps)
    assert [silence.tolist() for silence in silences if np.ptp(silence) > 299][1] == [4000, 6000]
    assert silences[0][0] == 0 and silences[-1][1] == signal.size
    low = 0.9 * np.sin(2 * np.pi * 50 * time)  # zero crossings of 8 bits
    assert not len(find(low, bits=8)[0])


@pytest.mark.parametrize("rate", [8000, 48_000])
@pytest.mark.parametrize("milliseconds, is_gap", [(60, True), (70, False)])
def test_a_gap_is_at_most_one_window_long(tmp_path, rate, milliseconds, is_gap):
    """A window has 64 ms."""
    tone, _, _ = tone_with_gaps(rate, seconds=0.5)
    tone[rate // 4 :][: rate * milliseconds // 1000] = 0
    soundfile.write(tmp_path / "a.wav", tone, rate)
    line = restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav", keep=True)
    assert ("1 gap, 12.0% missing" if is_gap else "but 1 long silence could be") in line


@pytest.mark.parametrize("subtype, bits", [("PCM_16", 16), ("PCM_24", 24)])
def test_dither_in_a_files_gaps_is_missing_sound(tmp_path, subtype, bits):
    """Its magnitude is up to 10 of the file's steps."""
    _, chopped, gaps = tone_with_gaps(RATE)
    dither = np.random.default_rng(0).integers(-10, 11, chopped.size) / 2 ** (bits - 1)
    soundfile.write(tmp_path / "a.wav", chopped + dither * gaps, RATE, subtype)
    line = restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav", keep=True)
    assert "10 gaps, 10.0% missing" in line


def test_sudden_silences_are_named_because_they_may_be_gaps(tmp_path):
    """They are longer than a window. Silences at an end or between fades are no gaps."""
    signal = 0.5 * np.sin(2 * np.pi * 400 * np.arange(2 * RATE) / RATE + 0.3)
    signal[:3000] = signal[-3000:] = signal[8000:11000] = 0
    signal[11_000:12_000] *= np.linspace(0, 1, 1000) ** 4
    for sudden, said in ((0, ""), (1, "but 2 long silences could be missing sound;")):
        soundfile.write(tmp_path / "a.wav", np.stack([signal, signal], 1), RATE)
        line = restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav")
        assert said in line and ("--gaps" in line) == sudden and "no gaps found" in line
        signal[20_000:21_500] = 0
    (tmp_path / "gaps").write_text("0.1 0.11")
    gaps = read_labels(tmp_path / "gaps")
    line = restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav", gaps)
    assert "silence" not in line


@pytest.mark.parametrize("jump, is_gap", [(0.02, True), (0.005, False)])
def test_a_gap_begins_or_ends_with_a_jump_of_one_percent(jump, is_gap):
    """The jump is relative to the median magnitude nearby. Rests with fades begin lower."""
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    signal[4000:4500], signal[[3999, 4500]] = 0, 0.25 * jump
    assert find(signal, bits=24)[0].tolist() == [[4000, 4500]] * is_gap


def test_gaps_are_found_beside_loud_events():
    """The sound is 54 dB below the events, which last 20 ms or one sample."""
    signal = 0.002 * np.random.default_rng(0).standard_normal(2 * RATE)
    signal.reshape(-1, 1600)[:, 800:960] = 0
    expected = find(signal, bits=24)[0]
    assert expected.tolist() == [[first + 800, first + 960] for first in range(0, 2 * RATE, 1600)]
    signal[1600:1920] += np.hanning(320)
    signal[::700] = np.where(signal[::700], 1, 0)
    assert find(signal, bits=24)[0].tolist() == expected.tolist()


@pytest.mark.parametrize("level", [1 / 32768, 0.1, 0.6])
def test_pulses_are_sound_and_contain_no_gaps(level):
    pulses = level * (np.arange(RATE) % 60 < 15)
    assert not len(find(pulses)[0])
    assert not len(find(pulses + np.random.default_rng(0).normal(0, 2, RATE) / 32768)[0])
    dither = np.round(np.random.default_rng(0).normal(0, 0.4, RATE)) * level
    assert not len(find(dither)[0])


def test_short_rests_with_fades_are_no_gaps():
    signal = 0.5 * np.sin(2 * np.pi * 400 * np.arange(2 * RATE) / RATE + 0.3)
    rests = signal.reshape(-1, 1600)
    rests[:, 800:1120] = 0
    rests[:, 640:800] *= np.hanning(320)[160:]
    rests[:, 1120:1280] *= np.hanning(320)[:160]
    assert not len(find(signal)[0])


def test_silence_and_a_silent_channel_stay_silent(tmp_path):
    tone, chopped, gaps = tone_with_gaps(RATE)
    chopped[6000:9000] = 0
    soundfile.write(tmp_path / "a.wav", np.stack([chopped, 0 * chopped], 1), RATE)
    restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav")
    restored, _ = soundfile.read(tmp_path / "b.wav")
    assert not restored[6000:9000, 0].any() and not restored[:, 1].any()
    gaps[5900:9100] = False
    assert audio_utils.snr_db(tone[gaps], restored[gaps, 0]) > 30


@pytest.mark.parametrize("samples", [1, 500, 1023, 1024, 1025])
def test_sounds_of_about_one_window_keep_their_length(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", tone_with_gaps(RATE)[0][:samples], RATE)
    restore_sound(
        stand_in(lambda windows, observed: windows), tmp_path / "a.wav", tmp_path / "b.wav"
    )
    given, restored = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    np.testing.assert_allclose(restored, given, atol=1.01 / 32768)


def test_the_network_gets_the_level_of_its_training(tmp_path):
    """First the sound has the level of noisy notes, then what the network knows that of notes."""
    seen = []

    def listen(windows, observed):
        seen.append(np.asarray(windows))
        return windows

    rng = np.random.default_rng(0)
    noise = rng.standard_normal(16 * RATE) * 0.001
    noise[8 * RATE :] = 0  # silence and gaps do not count
    noise[: 8 * RATE].reshape(-1, 1600)[:, 400:600] = 0
    # By default, sqrt(0.5**2 / 2 + 0.2**2).
    for metadata, expected in (({}, 0.40620), ({"rms": 0.1, "notes": ["C4"]}, 0.1)):
        soundfile.write(tmp_path / "a.wav", noise, RATE, subtype="FLOAT")
        restore_sound(
            stand_in(listen, **metadata), tmp_path / "a.wav", tmp_path / "b.wav", keep=False
        )
        for values, level in (seen[0], expected), (seen[2], expected * 0.35355 / 0.40620):
            values = values[: len(values) // 2]  # noise
            assert np.sqrt((values[values != 0] ** 2).mean()) == pytest.approx(level, rel=0.01)
        np.testing.assert_allclose(soundfile.read(tmp_path / "b.wav")[0], noise, atol=1e-4)
        seen.clear()


def test_clipped_samples_are_counted_except_in_floats(tmp_path, monkeypatch):
    """A long sound is restored in pieces, which all count."""
    monkeypatch.setattr("files.restore_sound.PIECE_SECONDS", 0.14)  # 2,240 samples
    signal = np.random.default_rng(0).uniform(-0.9, 0.9, 5000)
    signal[2000:2500] = 0

    def loud_in_gaps(windows, observed):
        loud = np.resize(np.float32([4, -4, -4, 0.5]), windows.shape[1])
        return np.where(observed == 0, loud, windows)

    lines, peaks = [], []
    for subtype in ("FLOAT", "PCM_16"):
        soundfile.write(tmp_path / "a.wav", signal, RATE, subtype=subtype)
        lines.append(restore_sound(stand_in(loud_in_gaps), tmp_path / "a.wav", tmp_path / "b.wav"))
        result = soundfile.read(tmp_path / "b.wav")[0]
        peaks.append((result.min(), result.max(), np.count_nonzero(np.abs(result) > 1)))
    (low, high, beyond), clipped = peaks
    assert low < -1.5 and high > 1.5 and beyond > 300 and "clipped" not in lines[0]
    assert clipped == (-1, 32767 / 32768, 0) and f", {beyond} samples clipped" in lines[1]


def test_samples_at_full_scale_are_not_clipped(tmp_path):
    """Without a gap they stay as they are."""
    levels = np.where(np.arange(5000) // 40 % 2, -(2**15), 2**15 - 1)
    soundfile.write(tmp_path / "a.wav", levels.astype(np.int16), RATE)
    line = restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav", keep=True)
    assert line.endswith("no gaps found")
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], levels)


def test_a_file_cut_short_is_restored_up_to_its_end(tmp_path):
    tone, chopped, _ = tone_with_gaps(44100, seconds=2.0)
    for name in ("whole.mp3", "cut.mp3"):
        soundfile.write(tmp_path / name, chopped, 44100)
    whole = (tmp_path / "whole.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "gaps").write_text("0.05 0.06\n")
    restore_sound(
        stand_in(sinusoids),
        tmp_path / "cut.mp3",
        tmp_path / "b.mp3",
        read_labels(tmp_path / "gaps"),
    )
    restored = soundfile.read(tmp_path / "b.mp3")[0]
    readable, _ = read(tmp_path / "cut.mp3")
    assert 0.5 < readable.size / 44100 < 1.5 and restored.size == readable.size
    gap = slice(2205, 2646)
    assert audio_utils.snr_db(tone[gap], restored[gap]) > 20


def as_trained(windows, observed):
    """A model that draws only sinusoids of amplitude 0.5, like the default model."""
    drawn = sinusoids(windows, observed)
    return 0.5 * drawn / np.maximum(np.abs(drawn).max(1, keepdims=True), 1e-9)


def restored(tmp_path, signal, model=sinusoids, rate=RATE, **options):
    soundfile.write(tmp_path / "in.wav", signal, rate, subtype="FLOAT")
    restore_sound(stand_in(model), tmp_path / "in.wav", tmp_path / "out.wav", **options)
    return soundfile.read(tmp_path / "out.wav")[0]


@pytest.fixture
def labels(tmp_path):
    """The gaps of `tone_with_gaps` in a file: found gaps depend on the sound."""
    (tmp_path / "gaps").write_text("".join(f"{n / 10 + 0.05} {n / 10 + 0.06}\n" for n in range(10)))
    return read_labels(tmp_path / "gaps")


@pytest.mark.parametrize("offset", [0.02, 0.2, "drifting"])
def test_an_offset_is_hidden_from_the_network_and_kept(tmp_path, offset):
    tone, _, gaps = tone_with_gaps(RATE, seconds=2.0)
    # The drift reaches 0.1.
    value = 0.1 * np.sin(np.pi * np.arange(tone.size) / RATE) if offset == "drifting" else offset
    result = restored(tmp_path, (tone + value) * ~gaps)
    assert audio_utils.snr_db(tone, result - value) > 30


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("loud", [1.0, 0.1])
def test_the_tone_keeps_its_level_at_any_noise(tmp_path, noise, loud):
    tone, _, gaps = tone_with_gaps(RATE, seconds=3.0)
    signal = (tone + noise * np.random.default_rng(0).standard_normal(tone.size)) * ~gaps
    result = restored(tmp_path, loud * signal, as_trained)
    assert abs(20 * np.log10(np.vdot(result, tone) / np.vdot(tone, tone) / loud)) < 0.2


@pytest.mark.parametrize("decibels", [6, 20])
def test_notes_of_changing_loudness_each_get_their_own_gain(tmp_path, monkeypatch, decibels):
    tone, _, gaps = tone_with_gaps(RATE, seconds=3.0)
    clean = tone + 0.2 * np.random.default_rng(1).standard_normal(tone.size)
    loudness = np.where(np.arange(tone.size) // 8000 % 2, 10 ** (-decibels / 20), 1)

    def ratio_db():
        return audio_utils.snr_db(
            loudness * tone, restored(tmp_path, loudness * clean * ~gaps, as_trained)
        )

    own = ratio_db()
    monkeypatch.setattr(
        "files.restore_sound.at_trained_level", lambda reconstruct, rms: reconstruct
    )
    assert own > max(19, ratio_db() + 5)


@pytest.mark.parametrize("scale, offset", [(0.001, 0), (0.03, 0), (-1, 0), (1, 0.3), (-0.1, -0.02)])
def test_gain_sign_and_offset_pass_through(tmp_path, labels, scale, offset):
    """A network that is neither linear nor odd."""
    tone, _, _ = tone_with_gaps(RATE)
    noisy = tone + 0.2 * np.random.default_rng(0).standard_normal(tone.size)

    def network(windows, observed):
        return as_trained(windows, observed) + 0.1 * np.maximum(windows, 0)

    plain = restored(tmp_path, noisy, network, gap_file=labels)
    changed = restored(tmp_path, scale * noisy + offset, network, gap_file=labels)
    with np.errstate(divide="ignore"):  # without an offset they are equal
        assert audio_utils.snr_db(plain, (changed - offset) / scale) > 60


@pytest.mark.parametrize("level, offset", [(0.02, 0), (1e-5, 0), (0, 3e-5), (1e-3, 0.1)])
def test_rests_are_not_filled_with_a_tone(tmp_path, level, offset):
    tone, _, gaps = tone_with_gaps(RATE, seconds=4.0)
    rest = np.arange(tone.size) // 16000 % 2 == 1
    noise = level * np.random.default_rng(0).standard_normal(tone.size)
    result = restored(tmp_path, (tone * ~rest + noise + offset) * ~gaps, as_trained) - offset
    inside_rest = np.r_[17100:30900, 49100:64000]  # farther than a window from a note
    assert np.sqrt(np.mean(result[inside_rest] ** 2)) <= max(0.5 * level, 1e-5)  # -100 dB
    assert audio_utils.snr_db(tone * ~rest, result) > 17


@pytest.mark.parametrize("event", [np.hanning(320), np.eye(320)[::40].sum(0)])
def test_a_loud_event_changes_nothing_far_away(tmp_path, labels, event):
    tone, _, gaps = tone_with_gaps(RATE, seconds=2.0)
    quiet = 0.1 * (tone + 0.2 * np.random.default_rng(0).standard_normal(tone.size))
    loud = quiet.copy()
    loud[16000:16320] += event
    before, after = (
        restored(tmp_path, sound * ~gaps, as_trained, gap_file=labels) for sound in (quiet, loud)
    )
    np.testing.assert_allclose(after[:12800], before[:12800], atol=1e-6)
    np.testing.assert_allclose(after[19520:], before[19520:], atol=1e-6)


def test_clicks_change_nothing_beside_them(tmp_path, labels):
    """A click in every 58 ms: each window has at least one."""
    tone, _, gaps = tone_with_gaps(RATE, seconds=2.0)
    quiet = 0.1 * (tone + 0.2 * np.random.default_rng(0).standard_normal(tone.size)) * ~gaps
    clicks = quiet.copy()
    clicks[100::928] = 1
    before, after = (restored(tmp_path, sound, gap_file=labels) for sound in (quiet, clicks))
    assert audio_utils.snr_db(0.1 * tone, after) > audio_utils.snr_db(0.1 * tone, before) - 0.3


def test_a_click_is_found_to_the_sample_and_noise_has_none():
    noise = np.random.default_rng(0).standard_normal(2 * RATE)
    observed = np.arange(noise.size) % 1024 > 200
    noise *= observed
    assert not clicks(noise, observed, RATE).any()
    loud = noise + 12 * np.isin(np.arange(noise.size), [5000, 9000, 9001])
    assert np.flatnonzero(clicks(loud, observed, RATE)).tolist() == [5000, 9000, 9001]


@pytest.mark.parametrize("rate", [RATE, 3 * RATE])
def test_only_events_of_at_most_a_millisecond_are_clicks(tmp_path, rate):
    """The network sees a burst of 2 ms, at any rate of the file."""
    seen, noise = [], 0.01 * np.random.default_rng(0).standard_normal(rate // 16)  # one window
    sign = np.where(np.arange(noise.size) // 12 % 2, 1, -1)
    noise[rate // 80 :][: rate // 500] = 0.8 * sign[: rate // 500]
    noise[rate // 25 :][: rate // 4000] = 0.8

    def listen(windows, observed):
        seen.append(np.array(observed))
        return windows

    restored(tmp_path, np.pad(noise, (0, rate // 500)), listen, rate)
    observed = seen[0][0] == 1
    assert observed[190:250].all() and not observed[641:643].any()


def test_a_sound_of_mostly_gaps_is_refused(tmp_path):
    tone, _, _ = tone_with_gaps(RATE)
    (tmp_path / "whole").write_text("0 1\n")
    for signal, gap_file, words in (
        (
            tone * (np.arange(RATE) % 160 < 40),
            None,
            r"in.wav: .*missing \(75%\).*a file for --gaps",
        ),
        (tone, read_labels(tmp_path / "whole"), r"^[^ ]*whole: .*missing \(100%\)"),
    ):
        with pytest.raises(UserError, match=words):
            restored(tmp_path, signal, gap_file=gap_file)
    # Silence around it does not count: 3/5 of the tone is missing.
    padded = np.pad(tone * (np.arange(RATE) % 160 < 64), 2 * RATE)
    assert restored(tmp_path, padded).any()
    # It does count in a list of gaps, which may be in silence: here 2 of 5 seconds.
    (tmp_path / "silent").write_text("0 2\n")
    assert restored(tmp_path, padded, gap_file=read_labels(tmp_path / "silent")).any()


@pytest.mark.parametrize("noise, seconds", [(0, 2.048), (0.2, 2.048), (0.4, 2.048), (0, 8.192)])
def test_the_line_says_how_much_is_explained(tmp_path, noise, seconds):
    """Half of the sound is a note that the model of 440 Hz does not know."""
    tone, _, gaps = tone_with_gaps(RATE, seconds)
    other, _, _ = tone_with_gaps(RATE, seconds, frequency=1320.0)
    time = np.arange(1024) / RATE
    basis = np.stack([np.sin(2 * np.pi * 440 * time), np.cos(2 * np.pi * 440 * time)])

    def one_note(windows, observed):
        return windows @ np.linalg.pinv(basis) @ basis

    hiss = noise * np.random.default_rng(0).standard_normal(tone.size)
    half = np.where(np.arange(tone.size) < tone.size // 2, tone, other)
    stereo = np.stack([tone, other])
    for signal, low, high in ((tone, 97, 100), (half, 46, 54), (stereo, 46, 54), (other, 0, 4)):
        soundfile.write(tmp_path / "a.wav", ((signal + hiss) * ~gaps).T, RATE, subtype="FLOAT")
        line = restore_sound(stand_in(one_note), tmp_path / "a.wav", tmp_path / "b.wav")
        assert low <= int(re.search(r"explains (\d+)% of this sound", line)[1]) <= high
        assert ("not the kind of sound" in line) == (low < 80)


@pytest.mark.parametrize("signal", [np.zeros(RATE), np.full(RATE, 1 / 32768)])
def test_no_fraction_of_silence_is_explained(tmp_path, signal):
    soundfile.write(tmp_path / "a.wav", signal, RATE)
    line = restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav")
    assert "explains" not in line
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav")[0], signal)


@pytest.mark.parametrize(
    "lines, expected",
    [
        ("1,500000\t1,550000\tgap\n", [[1500, 1550]]),  # a decimal comma
        ("1\t1.5\tclick\t2", [[1000, 1500]]),
        ("1,5\t1,55", [[1500, 1550]]),
        ("1,5 1,55", [[1500, 1550]]),
        ('"1,5";"1,55"', [[1500, 1550]]),
        ("1.5,1.55,gap, loud", [[1500, 1550]]),
        ("1, 2", [[1000, 2000]]),
        ("0,1.5", [[0, 1500]]),
        ("\ufeff1.5\t1.55\tgap\r\n", [[1500, 1550]]),
        ("1.5\t1.55\tgap\n\\\t1000.0\t2000.0\n", [[1500, 1550]]),  # the frequency range of a label
        ("1.5\t1.55\t2", [[1500, 1550]]),  # a label that is a number
        ("1\t1.5\t0.5", [[1000, 1500]]),
        ("1\t1.5\t5000", [[1000, 1500]]),
        ("0.5\t0.5\there\n1.5\t1.55\tgap", [[1500, 1550]]),
        ("1.5\t1.55\n1.52\t1.54\n1.5\t1.55\n1.54\t1.6\n1.6\t1.7", [[1500, 1600], [1600, 1700]]),
    ],
)
def test_common_layouts_of_labels_are_read(tmp_path, lines, expected, capfd):
    (tmp_path / "labels.txt").write_text(lines, "utf-8", newline="")
    assert read_gaps(read_labels(tmp_path / "labels.txt"), 1000, 3000).tolist() == expected
    assert ("line 1: a point at 0.5 s" in capfd.readouterr().err) == ("here" in lines)


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
def test_labels_in_utf_16_are_read(tmp_path, coding):
    """Windows calls it "Unicode"."""
    (tmp_path / "labels.txt").write_bytes("\ufeff1.5\t1.55\tÄ\r\n".encode(coding))
    assert read_gaps(read_labels(tmp_path / "labels.txt"), 1000, 3000).tolist() == [[1500, 1550]]


@pytest.mark.parametrize("text", ["", " \n\n", "\ufeff"])
def test_an_empty_file_of_labels_is_refused(tmp_path, text):
    """Otherwise nothing would be restored, and the line would say that nothing is missing."""
    (tmp_path / "labels.txt").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"labels.txt: lists no gaps"):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    "line",
    [
        *("1,5", "1,5,1,55", "1,5, 1,55", "1,500\t1,550", "1_1 2", "1:30 1:35"),
        *("1\t1.25\t1.30", "1 1.25 1.30", "1, 1.25, 1.30", "1;1,25;1,30", "1. 1.25 1.30 click"),
        *("1.25 1.30 1.40 1.45", "1.25,1.30,1.40,1.45", "1.5 1.55 2 2.1 3 3.1"),  # several gaps
    ],
)
def test_an_ambiguous_label_is_refused(tmp_path, line):
    (tmp_path / "labels.txt").write_text(f"0.1 0.2\n{line}\n")
    with pytest.raises(UserError, match=r"labels.txt: line 2"):
        read_gaps(read_labels(tmp_path / "labels.txt"), 1000, 2_000_000)


@pytest.mark.parametrize("subtype", ["ALAW", "ULAW"])
def test_gaps_are_found_if_the_encoding_has_no_zero(tmp_path, subtype):
    tone, chopped, gaps = tone_with_gaps(8000, seconds=0.5)
    soundfile.write(tmp_path / "a.wav", chopped, 8000, subtype=subtype)
    line = restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav", keep=True)
    assert "5 gaps, 10." in line
    assert audio_utils.snr_db(tone[gaps], soundfile.read(tmp_path / "b.wav")[0][gaps]) > 25


@pytest.mark.parametrize(
    "name, encoding",
    [("a.wav", "IMA_ADPCM"), ("a.wav", "MS_ADPCM"), ("a.ogg", "VORBIS"), ("a.mp3", "MP3")],
)
def test_encodings_without_exact_zeros_get_a_hint_about_gaps(tmp_path, name, encoding):
    subtype = None if encoding == "MP3" else encoding
    soundfile.write(tmp_path / name, tone_with_gaps(16000)[1], 16000, subtype=subtype)
    line = restore_sound(stand_in(sinusoids), tmp_path / name, tmp_path / f"b-{name}")
    assert f" {encoding} does not preserve zeros" in line and "--gaps" in line
    assert "nothing missing" not in line


@pytest.mark.parametrize("name, rate", [("a.mp3", 44100), ("a.ogg", 44100), ("a.opus", 48000)])
def test_a_lossy_file_is_encoded_at_the_highest_rate(tmp_path, name, rate):
    tone, _, _ = tone_with_gaps(rate, seconds=3.0)
    noisy = tone + 0.02 * np.random.default_rng(0).standard_normal(tone.size)
    kind = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
    with soundfile.SoundFile(tmp_path / name, "w", rate, 1, compression_level=0, **kind) as file:
        file.title = "Lücken"
        file.write(noisy)
    (tmp_path / "gaps").write_text("1.0 1.02\n")
    line = restore_sound(
        stand_in(sinusoids),
        tmp_path / name,
        tmp_path / f"b-{name}",
        read_labels(tmp_path / "gaps"),
        keep=True,
    )
    before, after = (soundfile.read(tmp_path / file)[0] for file in (name, f"b-{name}"))
    kept = np.r_[:rate, rate + rate // 49 : tone.size]
    measured = audio_utils.snr_db(before[kept], after[kept])
    assert measured > 24 and "encoded again" in line and ".wav" in line
    assert (tmp_path / f"b-{name}").stat().st_size > 0.98 * (tmp_path / name).stat().st_size
    with soundfile.SoundFile(tmp_path / f"b-{name}") as file:
        assert file.title == "Lücken"


def read(path):
    with sound_reader.open_sound(path) as sound:
        return np.concatenate(list(sound.blocks()))[:, 0], sound


@pytest.mark.parametrize("codec, ratio_db", [("aac", 24), ("alac", 90)])
def test_an_m4a_comes_back_as_m4a(tmp_path, codec, ratio_db):
    tone, _, _ = tone_with_gaps(44100, seconds=1.501)
    tone += 0.02 * np.random.default_rng(0).standard_normal(tone.size)
    write(tmp_path / "a.m4a", tone, 44100, codec, "stereo", {"title": "Lücken", "track": "3"})
    (tmp_path / "gaps").write_text("1.0 1.02\n")
    files = tmp_path / "a.m4a", tmp_path / "b.m4a"
    line = restore_sound(stand_in(sinusoids), *files, read_labels(tmp_path / "gaps"), keep=True)
    (before, given), (after, sound) = map(read, files)
    assert before.size == after.size == tone.size
    assert (sound.rate, sound.channels, sound.format) == (44100, 2, given.format)
    assert sound.subtype == codec.upper() and ("encoded again" in line) == (codec == "aac")
    kept = np.r_[:44100, 45000 : tone.size]
    with np.errstate(divide="ignore"):  # ALAC is lossless
        assert audio_utils.snr_db(before[kept], after[kept]) > ratio_db
    with av.open(tmp_path / "b.m4a") as container:
        assert container.metadata["title"] == "Lücken" and container.metadata["track"] == "3"


@pytest.mark.parametrize("codec", ["aac", "alac"])
def test_an_m4a_may_be_reconstructed_as_a_whole(tmp_path, codec):
    """The network's output has single precision, which the encoder does not take."""
    write(tmp_path / "a.m4a", tone_with_gaps(RATE)[0], RATE, codec)
    restore_sound(stand_in(sinusoids), tmp_path / "a.m4a", tmp_path / "b.m4a")
    given, result = (read(tmp_path / name)[0] for name in ("a.m4a", "b.m4a"))
    assert given.size == result.size and audio_utils.snr_db(given, result) > 20


@pytest.mark.parametrize("name, codec", [("a.wma", "wmav2"), ("a.webm", "libopus")])
def test_a_format_that_can_only_be_read_becomes_a_wav(tmp_path, name, codec):
    write(tmp_path / name, tone_with_gaps(48000)[0], 48000, codec, tags={"title": "Ton"})
    with pytest.raises(UserError, match=r"can be read, but not written.*\.wav"):
        restore_sound(stand_in(sinusoids), tmp_path / name, tmp_path / f"b-{name}")
    restore_sound(stand_in(sinusoids), tmp_path / name, tmp_path / "b.wav")
    given, _ = read(tmp_path / name)
    result, rate = soundfile.read(tmp_path / "b.wav")
    assert (rate, result.size) == (48000, given.size) and audio_utils.snr_db(given, result) > 20
    with soundfile.SoundFile(tmp_path / "b.wav") as file:
        assert (file.format, file.subtype, file.title) == ("WAV", "PCM_16", "Ton")


@pytest.mark.parametrize("subtype, expected", [("PCM_24", "PCM_24"), ("VORBIS", "PCM_16")])
def test_any_sound_may_become_a_wav(tmp_path, subtype, expected):
    name = "a.ogg" if subtype == "VORBIS" else "a.flac"
    soundfile.write(tmp_path / name, tone_with_gaps(RATE)[0], RATE, subtype=subtype)
    line = restore_sound(stand_in(sinusoids), tmp_path / name, tmp_path / "b.wav", keep=True)
    given, _ = read(tmp_path / name)
    result, _ = soundfile.read(tmp_path / "b.wav")
    np.testing.assert_allclose(result, given, atol=2.0**-16)
    assert soundfile.info(tmp_path / "b.wav").subtype == expected and "encoded again" not in line


def test_a_wav_that_contains_mp3_becomes_a_plain_wav(tmp_path):
    """Some recorders write such files. libsndfile says that it can write them, but it cannot."""
    tone = tone_with_gaps(RATE)[0]
    write(tmp_path / "a.wav", tone, RATE, "libmp3lame")
    restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav", keep=True)
    given, result = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    np.testing.assert_allclose(result, given, atol=2.0**-16)
    assert soundfile.info(tmp_path / "b.wav").subtype == "PCM_16"


def test_what_the_result_lacks_is_named_and_nothing_else(tmp_path):
    source, loops = tmp_path / "a.wav", b"smpl" + (60).to_bytes(4, "little") + bytes(60)
    soundfile.write(source, tone_with_gaps(RATE)[1], RATE, "PCM_16")
    plain = source.read_bytes()
    for content, said in ((plain, ""), (plain + loops, ", without its chunk smpl")):
        size = (len(content) - 8).to_bytes(4, "little")
        source.write_bytes(content[:4] + size + content[8:])
        line = restore_sound(stand_in(sinusoids), source, tmp_path / "b.wav", keep=True)
        assert line.endswith(f"filled by autoregression{said}")


def test_a_compressed_file_that_ends_too_early_gets_a_remark(tmp_path):
    write(tmp_path / "a.webm", tone_with_gaps(48000, 4.0)[0], 48000, "libopus")
    content = (tmp_path / "a.webm").read_bytes()
    for size, cut in ((len(content), False), (len(content) // 2, True)):
        (tmp_path / "a.webm").write_bytes(content[:size])
        line = restore_sound(stand_in(sinusoids), tmp_path / "a.webm", tmp_path / "b.wav")
        assert bool(stated := re.search("cut short .* its length should be (.*) s", line)) == cut
        assert not cut or float(stated[1]) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(
    "name, codec",
    [("a.webm", "libopus"), ("a.opus", "libopus"), ("a.m4a", "aac"), ("a.mp4", "aac")],
)
def test_a_brief_compressed_sound_is_not_called_cut_short(tmp_path, name, codec):
    """Its stated length may include the encoder's delay and padding."""
    write(tmp_path / name, tone_with_gaps(48000, 0.15)[0], 48000, codec)
    line = restore_sound(stand_in(sinusoids), tmp_path / name, tmp_path / "b.wav")
    assert "cut short" not in line


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_a_wav_or_aiff_that_was_cut_short_gets_a_remark(tmp_path, name):
    soundfile.write(tmp_path / name, tone_with_gaps(RATE, 3.0)[0], RATE, "PCM_24")
    content = (tmp_path / name).read_bytes()
    for size, words in ((len(content), False), (len(content) // 3, True)):
        (tmp_path / name).write_bytes(content[:size])
        line = restore_sound(stand_in(sinusoids), tmp_path / name, tmp_path / "b.wav")
        assert ("its length should be 3.00 s" in line) == words


def test_big_endian_wavs_are_restored(tmp_path):
    tone, chopped, gaps = tone_with_gaps(RATE)
    soundfile.write(tmp_path / "a.wav", chopped, RATE, subtype="PCM_16", endian="BIG")
    restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav")
    result = soundfile.read(tmp_path / "b.wav")[0]
    assert result.size == tone.size and audio_utils.snr_db(tone[gaps], result[gaps]) > 30
    assert (tmp_path / "b.wav").read_bytes()[:4] == b"RIFX"


def test_tags_are_kept(tmp_path):
    for name in ("a.flac", "a.wav", "a.aiff"):
        with soundfile.SoundFile(tmp_path / name, "w", RATE, 1) as file:
            file.title, file.artist = "Ein Titel", "Jemand"
            file.write(tone_with_gaps(RATE)[1])
        assert "tags" not in restore_sound(
            stand_in(sinusoids), tmp_path / name, tmp_path / f"b-{name}"
        )
        with soundfile.SoundFile(tmp_path / f"b-{name}") as file:
            assert (file.title, file.artist) == ("Ein Titel", "Jemand")


# The first is too small for the decoded sound, the second only for the result.
def test_tags_need_not_be_valid_text(tmp_path):
    """Old MP3s have tags in any encoding."""
    soundfile.write(tmp_path / "a.mp3", tone_with_gaps(RATE)[1], RATE)
    with open(tmp_path / "a.mp3", "ab") as file:
        file.write(b"TAG" + b"Caf\xe9".ljust(30, b"\0") + bytes(95))
    restore_sound(stand_in(sinusoids), tmp_path / "a.mp3", tmp_path / "b.mp3")
    assert soundfile.SoundFile(tmp_path / "b.mp3").title == "Caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("size", [100_000, 384_020])
def test_a_full_disk_is_named_and_the_old_result_stays(tmp_path, size, full_disk):
    soundfile.write(tmp_path / "a.wav", np.tile(tone_with_gaps(RATE)[1], 3), RATE, subtype="DOUBLE")
    (tmp_path / "b.wav").write_text("earlier")
    with full_disk(size), pytest.raises(OSError, match=r"File too large|b\.wav"):
        restore_sound(
            stand_in(lambda windows, observed: windows), tmp_path / "a.wav", tmp_path / "b.wav"
        )
    assert (tmp_path / "b.wav").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_disk_of_the_result_holds_the_decoded_sound(tmp_path):
    """A long sound may be larger than the system's folder of temporary files, often in memory."""
    soundfile.write(tmp_path / "a.wav", tone_with_gaps(RATE)[1], RATE)
    with contextlib.ExitStack() as opened:
        result = tmp_path / "results" / "b.wav"
        result.parent.mkdir()
        _, (channel,) = _decoded(stand_in(sinusoids), tmp_path / "a.wav", result, None, opened)
        where = os.readlink(f"/proc/self/fd/{channel.file.fileno()}")
    assert where.startswith(f"{result.parent}/") and not list(result.parent.iterdir())


def test_all_samples_that_a_gap_touches_are_hidden(tmp_path):
    seen = []

    def listen(windows, observed):
        seen.append(np.array(windows))
        return windows

    first, end = 883, 1327  # at 44.1 kHz; at 16 kHz 320.4 and 481.5
    signal = 0.5 * np.cos(2 * np.pi * 300 * np.arange(2600) / 44100)
    signal[first:end] = 0
    soundfile.write(tmp_path / "a.wav", signal, 44100, subtype="FLOAT")
    restore_sound(stand_in(listen), tmp_path / "a.wav", tmp_path / "b.wav")
    window = np.concatenate(seen)[0]
    assert not window[320:482].any() and window[319] and window[482]


@pytest.mark.parametrize(
    "subtype, levels", [("PCM_U8", 2**7), ("PCM_16", 2**15), ("PCM_24", 2**23)]
)
def test_results_are_rounded_to_the_files_levels(tmp_path, subtype, levels):
    """A file of floats with the same samples gives the unrounded result."""
    signal = np.round(np.random.default_rng(0).uniform(-0.5, 0.5, 3000) * levels) / levels
    results = {}
    for kind in ("DOUBLE", subtype):
        soundfile.write(tmp_path / "a.wav", signal, RATE, subtype=kind)
        restore_sound(
            stand_in(lambda windows, observed: 0.73 * windows),
            tmp_path / "a.wav",
            tmp_path / f"{kind}.wav",
        )
        results[kind] = soundfile.read(tmp_path / f"{kind}.wav")[0]
    assert np.abs(results[subtype] - results["DOUBLE"]).max() < 0.501 / levels
    unrounded = results["DOUBLE"] * levels
    assert np.abs(unrounded - np.round(unrounded)).max() > 0.3  # rounding was needed


def nothing(windows, observed):
    return np.zeros_like(windows)


def test_autoregression_fills_gaps_in_clean_sound(tmp_path):
    """The high tone is above the band of the network. The channels differ."""
    low, high = (tone_with_gaps(44100, 0.5, frequency) for frequency in (440.0, 12_000.0))
    tone, chopped, gaps = (
        np.stack([a + b, a], 1) if a.dtype != bool else a for a, b in zip(low, high)
    )
    soundfile.write(tmp_path / "a.wav", chopped, 44100, subtype="DOUBLE")
    line = restore_sound(stand_in(nothing), tmp_path / "a.wav", tmp_path / "b.wav", keep=True)
    restored, _ = soundfile.read(tmp_path / "b.wav")
    assert "10 gaps, 10.0% missing, filled by autoregression" in line
    assert audio_utils.snr_db(tone[gaps], restored[gaps]) > 60
    np.testing.assert_array_equal(restored[~gaps], chopped[~gaps])


@pytest.mark.parametrize("seconds", [0.16, 8])
def test_gaps_are_filled_alike_wherever_pieces_end(tmp_path, monkeypatch, seconds):
    _, chopped, gaps = tone_with_gaps(8000, gap=0.03)
    chopped += ~gaps * 0.01 * np.random.default_rng(0).standard_normal(chopped.size)
    monkeypatch.setattr("files.restore_sound.PIECE_SECONDS", seconds)
    soundfile.write(tmp_path / "a.wav", chopped, 8000, subtype="DOUBLE")
    restore_sound(stand_in(nothing), tmp_path / "a.wav", tmp_path / "b.wav", keep=True)
    expected = fill(chopped, np.flatnonzero(np.diff(gaps)).reshape(-1, 2) + 1, 8000)
    np.testing.assert_allclose(
        soundfile.read(tmp_path / "b.wav")[0][gaps], expected[gaps], atol=1e-6
    )


@pytest.mark.parametrize("rate, tolerance", [(RATE, 1e-5), (3 * RATE, 1e-3)])
def test_a_reconstruction_is_alike_wherever_pieces_end(tmp_path, monkeypatch, rate, tolerance):
    """Pieces have a whole number of hops, so they have the same windows at the model's rate."""
    tone, _, gaps = tone_with_gaps(rate, seconds=2.0)
    glide = np.sin(tone * 3 + 4000 * np.arange(tone.size) ** 2 / rate**2)
    noisy = (glide + 0.3 * np.random.default_rng(0).standard_normal(tone.size)) * ~gaps
    whole = restored(tmp_path, noisy, rate=rate)
    monkeypatch.setattr("files.restore_sound.PIECE_SECONDS", 0.512)
    assert np.std(whole) > 0.1
    np.testing.assert_allclose(restored(tmp_path, noisy, rate=rate), whole, atol=tolerance)


@pytest.mark.filterwarnings("error")
def test_a_gap_longer_than_a_piece_is_filled(tmp_path, monkeypatch):
    """The pieces in its middle have no level, because nothing is observed there."""
    monkeypatch.setattr("files.restore_sound.PIECE_SECONDS", 0.256)
    (tmp_path / "gaps").write_text("1 3\n")
    tone, _, _ = tone_with_gaps(RATE, seconds=4.0)
    result = restored(tmp_path, tone, gap_file=read_labels(tmp_path / "gaps"))
    assert np.isfinite(result).all() and audio_utils.snr_db(tone[:RATE], result[:RATE]) > 20


def test_the_network_fills_gaps_in_noisy_sound(tmp_path):
    tone, _, gaps = tone_with_gaps(RATE)
    noisy = (tone + 0.2 * np.random.default_rng(1).standard_normal(tone.size)) * ~gaps
    drawn = restored(tmp_path, noisy, as_trained)
    # The model knows single tones only.
    chord = tone + tone_with_gaps(RATE, frequency=950.0)[0]
    soundfile.write(tmp_path / "in.wav", np.stack([noisy, chord * ~gaps], 1), RATE, subtype="FLOAT")
    line = restore_sound(stand_in(as_trained), tmp_path / "in.wav", tmp_path / "out.wav", keep=True)
    kept, _ = soundfile.read(tmp_path / "out.wav")
    assert "filled by the network in channel 1, filled by autoregression in channel 2" in line
    np.testing.assert_array_equal(kept[gaps, 0], drawn[gaps])
    assert audio_utils.snr_db(chord[gaps], kept[gaps, 1]) > 60


def test_long_silence_does_not_decide_how_gaps_are_filled(tmp_path):
    """In silence, autoregression and network are both right."""
    tone, _, gaps = tone_with_gaps(RATE)
    noisy = (tone + 0.2 * np.random.default_rng(1).standard_normal(tone.size)) * ~gaps
    soundfile.write(tmp_path / "in.wav", np.append(noisy, np.zeros(5 * RATE)), RATE, "FLOAT")
    files = tmp_path / "in.wav", tmp_path / "out.wav"
    line = restore_sound(stand_in(as_trained), *files, keep=True)
    assert line.endswith("10 gaps, 1.7% missing, filled by the network")


def test_the_network_fills_scattered_gaps(tmp_path):
    tone, _, _ = tone_with_gaps(RATE)
    soundfile.write(tmp_path / "in.wav", tone, RATE, subtype="FLOAT")
    (tmp_path / "gaps").write_text(
        "".join(f"{start} {start + 0.002}\n" for start in np.arange(100, 900, 4) / 1000)
    )
    options = {"gap_file": read_labels(tmp_path / "gaps")}
    drawn = restored(tmp_path, tone, **options)
    line = restore_sound(
        stand_in(sinusoids), tmp_path / "in.wav", tmp_path / "out.wav", keep=True, **options
    )
    gaps = inside(read_gaps(read_labels(tmp_path / "gaps"), RATE, tone.size), 0, tone.size)
    assert "by the network" in line
    middle = gaps & (np.abs(np.arange(tone.size) - 8000) < 4000)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.wav")[0][middle], drawn[middle])


def test_listed_gaps_end_with_the_sound_at_the_latest(tmp_path):
    """Times are rounded in labels, so an end may be up to 1 ms too late."""
    (tmp_path / "labels.txt").write_text("0.5 1.0009")
    assert read_gaps(read_labels(tmp_path / "labels.txt"), 8000, 8000).tolist() == [[4000, 8000]]


@pytest.mark.parametrize("label", ["0.50001 0.50002", "1.0003 1.0009", "0.25 0.25"])
def test_a_label_between_two_samples_is_not_a_gap(tmp_path, capfd, label):
    """Neither is one just after the last sample, where rounded times may be."""
    (tmp_path / "labels.txt").write_text(f"0.1 0.2\n{label}\n")
    assert read_gaps(read_labels(tmp_path / "labels.txt"), 8000, 8000).tolist() == [[800, 1600]]
    said = capfd.readouterr().err
    assert f"labels.txt: line 2: a point at {label.split()[0]} s, not a gap" in said


@pytest.mark.parametrize("subtype, listed", [("PCM_16", True), ("ALAW", False)])
def test_nothing_in_a_gap_has_an_influence(tmp_path, subtype, listed):
    """Listed gaps may hold sound. A-law has no zero, so its detected gaps hold weak samples."""
    sound = 0.5 * np.sin(np.arange(8000) * 0.2 + 1)
    sound[4000:4200] = 0.9 if listed else 0
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype)
    (tmp_path / "gaps.txt").write_text("0.5 0.525")
    labels = read_labels(tmp_path / "gaps.txt") if listed else None
    kind = types.SimpleNamespace(sample_rate=8000)
    model = types.SimpleNamespace(input_size=512, kind=kind)
    with contextlib.ExitStack() as opened:
        files = tmp_path / "a.wav", tmp_path / "b.wav"
        _, (channel,) = _decoded(model, *files, labels, opened)
        assert channel.gaps.tolist() == [[4000, 4200]]
        assert not channel.read(4000, 4200).any() and channel.read(4200, 4210).all()


@given(
    st.lists(st.integers(-8, 8) | st.just(0), min_size=1, max_size=80),
    st.integers(1, 3),
    st.integers(1, 20),
    st.sampled_from([16, 1 << 16]),
)
def test_gaps_depend_on_neither_polarity_nor_direction(levels, repeated, longest, piece):
    sound = np.repeat(np.array(levels, float), repeated)

    def found(values):
        return find_gaps(lambda first, end: values[first:end], values.size, 1000, longest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signals.gaps.PIECE", piece)
        expected, inverted, reversed = found(sound), found(-sound), found(sound[::-1])
    assert expected[2] == inverted[2] == reversed[2]
    for stretches, other, mirrored in zip(expected[:2], inverted, reversed):
        np.testing.assert_array_equal(other, stretches)
        np.testing.assert_array_equal(sound.size - mirrored[::-1, ::-1], stretches)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("keep", [False, True])
def test_an_ordinary_sound_gets_no_further_remarks(tmp_path, channels, keep):
    tone, _, _ = tone_with_gaps(RATE)
    soundfile.write(tmp_path / "a.wav", np.stack([tone] * channels, 1), RATE)
    line = restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav", keep=keep)
    done = ", reconstructed by the network, the model explains 100% of this sound" * (not keep)
    count = {1: "1 channel", 2: "2 channels"}[channels]
    assert line == f"1.00 s, 16000 Hz, {count}: no gaps found{done}"


def test_the_network_fills_gaps_too_long_for_autoregression(tmp_path):
    tone, _, _ = tone_with_gaps(RATE, seconds=2.0)
    (tmp_path / "gaps").write_text("0.3 0.31\n0.5 0.51\n1 1.3\n1.8 1.81\n")
    labels = read_labels(tmp_path / "gaps")
    soundfile.write(tmp_path / "a.wav", tone, RATE, subtype="DOUBLE")
    files = tmp_path / "a.wav", tmp_path / "b.wav"
    line = restore_sound(stand_in(nothing), *files, labels, keep=True)
    result, long = soundfile.read(tmp_path / "b.wav")[0], slice(RATE, RATE + 4800)
    assert np.abs(result[long]).max() < 0.01  # only an offset
    result[long] = tone[long]
    np.testing.assert_allclose(result, tone, atol=1e-3)
    assert line.endswith("3 filled by autoregression and 1 by the network")
