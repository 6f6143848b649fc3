"""Restoring sound files: what is kept, what is replaced, what is refused."""

import numpy as np
import pytest
import soundfile

import audio_utils
from harness import UserError
from media import sound_files
from media.gaps import find_gaps, inside, read_gaps
from media.model_file import Restorer
from media.restore_sound import restore_sound

RATE = 16000


def sinusoids(windows):
    """A perfect model of one sinusoid a window: the peak of the spectrum, fitted by least squares where not 0."""
    time = np.arange(windows.shape[1])
    restored = []
    for window in np.asarray(windows, float):
        frequency = np.argmax(np.abs(np.fft.rfft(window, 2**16))) / 2**16
        basis = np.stack([np.sin(2 * np.pi * frequency * time), np.cos(2 * np.pi * frequency * time)], 1)
        shown = window != 0
        restored.append(basis @ np.linalg.lstsq(basis[shown], window[shown], rcond=None)[0])
    return np.array(restored)


def stand_in(reconstruct, **metadata):
    return Restorer(reconstruct, 1024, {"sample_rate": RATE, **metadata})


def tone_with_gaps(rate, seconds=1.0, frequency=440.0, gap=0.01):
    """A tone, the same with a gap every 0.1 s, and where they are."""
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
def test_a_tone_is_restored_at_any_rate_and_its_file_stays_what_it_is(tmp_path, name, rate, channels, subtype, keep):
    source, result = tmp_path / name, tmp_path / f"restored-{name}"
    seconds = 1.0003  # samples that are no whole number of windows, hops or anything
    parts = [tone_with_gaps(rate, seconds, 440.0 * (1 + channel)) for channel in range(channels)]
    tone, chopped, gaps = (np.stack(part, 1) for part in zip(*parts))
    soundfile.write(source, chopped, rate, subtype=subtype)
    line = restore_sound(stand_in(sinusoids), source, result, keep=keep)
    before, after = soundfile.info(source), soundfile.info(result)
    for fact in ("samplerate", "channels", "frames", "format", "subtype"):
        assert getattr(after, fact) == getattr(before, fact)
    assert f"{10 * channels} gaps" in line and "10." in line
    restored, _ = soundfile.read(result, always_2d=True)
    given, _ = soundfile.read(source, always_2d=True)
    assert audio_utils.snr_db(tone[gaps], restored[gaps]) > (25 if subtype == "PCM_U8" else 30)
    if keep:
        np.testing.assert_array_equal(restored[~gaps], given[~gaps])
        # No click: at the borders nothing jumps more than a tone does by itself, plus half a percent of full scale.
        steepest = np.abs(np.diff(tone, axis=0)).max(0)
        assert (np.abs(np.diff(restored, axis=0)).max(0) < steepest + (0.02 if subtype == "PCM_U8" else 0.01)).all()


def test_gaps_in_a_lossy_file_are_named_by_hand(tmp_path):
    tone, chopped, gaps = tone_with_gaps(44100)
    starts, ends = np.flatnonzero(np.diff(gaps.astype(int))).reshape(-1, 2).T / 44100
    labels = tmp_path / "labels.txt"
    lines = [f"{a:.6f}\t{b:.6f}\tdropout" for a, b in zip(starts, ends)]  # as Audacity exports them
    labels.write_text(
        "# start end\n\n" + "\n".join(reversed(lines)) + "\n0.0501, 0.0502"
    )  # any order, one inside another
    for name in ("a.ogg", "a.mp3"):
        soundfile.write(tmp_path / name, chopped, 44100)
        restore_sound(stand_in(sinusoids), tmp_path / name, tmp_path / f"b-{name}", labels)
        restored, rate = soundfile.read(tmp_path / f"b-{name}")
        assert rate == 44100 and restored.size == soundfile.read(tmp_path / name)[0].size == tone.size
        assert audio_utils.snr_db(tone[gaps], restored[gaps]) > 20
        assert soundfile.info(tmp_path / f"b-{name}").subtype == soundfile.info(tmp_path / name).subtype


@pytest.mark.parametrize("line", ["1.0", "one, two", "0.5 0.4", "-1, 0.2", "0.9, 1.1", "nan, 0.5", "0.1, inf"])
def test_a_line_that_names_no_gap_is_refused(tmp_path, line):
    (tmp_path / "gaps.csv").write_text(f"0.1,0.2\n{line}\n")
    with pytest.raises(UserError, match=r"gaps.csv: line 2"):
        read_gaps(tmp_path / "gaps.csv", RATE, RATE)


def find(tmp_path, signal, rate=RATE, subtype="PCM_16"):
    soundfile.write(tmp_path / "find.wav", signal, rate, subtype=subtype)
    with sound_files.ReadForward(tmp_path / "find.wav") as sound:
        return find_gaps(sound, 0.064 * rate)


def test_gaps_are_found_to_the_sample_wherever_blocks_end(tmp_path, monkeypatch):
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000)
    expected = [[3, 100], [4000, 5000], [5001, 5100], [19_900, 19_999]]
    for start, end in expected:
        signal[start:end] = 0
    signal[7000:7010] = 0  # too short
    for block in (64, 1000, 5000, 1 << 16):
        monkeypatch.setattr(sound_files, "FRAMES_A_BLOCK", block)
        (gaps,), (silences,), frames = find(tmp_path, signal, subtype="FLOAT")
        assert gaps.tolist() == expected and not len(silences) and frames == signal.size


def test_gaps_in_any_order_and_one_over_another_are_the_same_samples_in_every_block(tmp_path):
    starts, lengths = np.random.default_rng(0).integers([[0], [1]], [[900], [99]], (2, 40))
    gaps = np.stack([starts, starts + lengths], 1)
    (tmp_path / "gaps").write_text("".join(f"{start} {end}\n" for start, end in gaps))
    expected = np.zeros(1000, bool)
    for start, end in gaps:
        expected[start:end] = True
    stretches = read_gaps(tmp_path / "gaps", 1, 1000)
    for size in (1, 7, 100, 1000):
        blocks = [inside(stretches, first, min(first + size, 1000)) for first in range(0, 1000, size)]
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
    assert not inside(np.zeros((0, 2), int), 5, 9).any()


def test_silence_and_quiet_passages_are_no_gaps(tmp_path):
    time = np.arange(2 * RATE) / RATE
    quiet = 0.0002 * np.cos(2 * np.pi * 20 * time)  # 6 steps of 16 bits: rests at 0 for milliseconds
    signal = np.where(time < 1, 0.5 * np.sin(2 * np.pi * 400 * time + 0.3), quiet)
    signal[:300] = signal[4000:6000] = signal[-300:] = 0
    (gaps,), (silences,), _ = find(tmp_path, signal)
    assert not len(gaps)
    assert [silence.tolist() for silence in silences if np.ptp(silence) > 299][1] == [4000, 6000]
    assert silences[0][0] == 0 and silences[-1][1] == signal.size
    low = 0.9 * np.sin(2 * np.pi * 50 * time)  # zero crossings of 8 bits
    assert not len(find(tmp_path, low, subtype="PCM_U8")[0][0])


def test_silence_stays_silent_and_a_silent_channel_is_no_error(tmp_path):
    tone, chopped, gaps = tone_with_gaps(RATE)
    chopped[6000:9000] = 0
    soundfile.write(tmp_path / "a.wav", np.stack([chopped, 0 * chopped], 1), RATE)
    restore_sound(stand_in(sinusoids), tmp_path / "a.wav", tmp_path / "b.wav")
    restored, _ = soundfile.read(tmp_path / "b.wav")
    assert not restored[6000:9000, 0].any() and not restored[:, 1].any()
    gaps[5900:9100] = False
    assert audio_utils.snr_db(tone[gaps], restored[gaps, 0]) > 30


@pytest.mark.parametrize("samples", [1, 500, 1023, 1024, 1025])
def test_sounds_about_as_short_as_a_window_keep_their_length(tmp_path, samples):
    soundfile.write(tmp_path / "a.wav", tone_with_gaps(RATE)[0][:samples], RATE)
    restore_sound(stand_in(lambda windows: windows), tmp_path / "a.wav", tmp_path / "b.wav")
    given, restored = (soundfile.read(tmp_path / name)[0] for name in ("a.wav", "b.wav"))
    np.testing.assert_allclose(restored, given, atol=1.01 / 32768)


def test_the_network_is_shown_the_level_it_was_trained_at_whatever_the_files(tmp_path):
    seen = []

    def listen(windows):
        seen.append(np.asarray(windows))
        return windows

    rng = np.random.default_rng(0)
    noise = rng.standard_normal(16 * RATE) * 0.001
    noise[8 * RATE :] = 0  # silence does not count, nor does what is missing
    noise[: 8 * RATE].reshape(-1, 1600)[:, 400:600] = 0
    for metadata, expected in (({}, 0.40620), ({"rms": 0.1}, 0.1)):  # sqrt(0.5**2 / 2 + 0.2**2)
        soundfile.write(tmp_path / "a.wav", noise, RATE, subtype="FLOAT")
        restore_sound(stand_in(listen, **metadata), tmp_path / "a.wav", tmp_path / "b.wav", keep=False)
        values = np.concatenate(seen)
        assert np.sqrt((values[values != 0] ** 2).mean()) == pytest.approx(expected, rel=0.01)
        np.testing.assert_allclose(soundfile.read(tmp_path / "b.wav")[0], noise, atol=1e-8)
        seen.clear()


def test_what_would_clip_is_clipped_and_counted_in_whole_numbers_only(tmp_path):
    signal = np.random.default_rng(0).uniform(-0.9, 0.9, 5000)
    for subtype, peak in (("PCM_16", 1.0), ("FLOAT", 1.8)):
        soundfile.write(tmp_path / "a.wav", signal, RATE, subtype=subtype)
        line = restore_sound(stand_in(lambda windows: 2 * windows), tmp_path / "a.wav", tmp_path / "b.wav")
        assert np.abs(soundfile.read(tmp_path / "b.wav")[0]).max() == pytest.approx(peak, abs=0.01)
        assert ("clipped" in line) == (subtype == "PCM_16")


def test_a_file_cut_short_is_restored_as_far_as_it_goes(tmp_path):
    tone, chopped, _ = tone_with_gaps(44100, seconds=2.0)
    for name in ("whole.mp3", "cut.mp3"):
        soundfile.write(tmp_path / name, chopped, 44100)
    whole = (tmp_path / "whole.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "gaps").write_text("0.05 0.06\n")
    restore_sound(stand_in(sinusoids), tmp_path / "cut.mp3", tmp_path / "b.mp3", tmp_path / "gaps")
    readable, restored = soundfile.read(tmp_path / "cut.mp3")[0], soundfile.read(tmp_path / "b.mp3")[0]
    assert 0.5 < readable.size / 44100 < 1.5 and restored.size == readable.size
    gap = slice(2205, 2646)
    assert audio_utils.snr_db(tone[gap], restored[gap]) > 20
