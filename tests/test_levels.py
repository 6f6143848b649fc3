"""Levels of windows, with a stand-in for the network that projects onto two tones."""

import numpy as np
import pytest

from files.dense_network import DenseNetwork, weight_shapes
from signals.levels import at_trained_level, explained_fractions

TIME = np.arange(512) / 16000
ANGLES = 2 * np.pi * np.outer([250.0, 500.0], TIME)  # whole periods, so the basis is orthogonal
BASIS = np.concatenate([np.sin(ANGLES), np.cos(ANGLES)])


def projected(windows, observed):
    return (windows @ BASIS.T @ BASIS * 2 / TIME.size).astype(np.float32)


def test_noise_alone_gives_silence_and_a_tone_stays():
    """The projection of white noise has 4 of its 512 dimensions, 9% of its RMS.

    By chance a few windows have so much of it that they pass for tones.
    """
    noise = np.random.default_rng(0).standard_normal((64, TIME.size)).astype(np.float32)
    noise -= noise.mean(1, keepdims=True)
    observed, restore = np.ones_like(noise), at_trained_level(projected, 0.4)
    assert projected(noise, observed).std() > 0.07
    assert np.mean(restore(noise, observed).std(1) < 1e-3) > 0.85
    tones = np.tile(0.003 * np.sin(ANGLES[1]), (64, 1)).astype(np.float32)
    np.testing.assert_allclose(restore(tones, observed), tones, atol=1e-5)


def test_a_tone_well_below_the_noise_keeps_its_level():
    """It is 9 dB below, but has 64 times the energy that noise has in each dimension of a fit."""
    noise = np.random.default_rng(0).standard_normal((64, TIME.size))
    tone = 0.5 * np.sin(ANGLES[1])
    windows = (tone + noise - noise.mean(1, keepdims=True)).astype(np.float32)
    result = at_trained_level(projected, 0.4)(windows, np.ones_like(windows))
    assert np.mean(result @ tone) / (tone @ tone) == pytest.approx(1, abs=0.1)


def test_outputs_in_gaps_have_no_influence_elsewhere():
    """Factor and offset are fitted to the observed samples."""
    rng = np.random.default_rng(0)
    observed = np.ones((32, TIME.size), np.float32)
    observed[:, 100:250] = 0
    windows = (rng.standard_normal(observed.shape) * 0.1 + np.sin(ANGLES[1])) * observed
    windows = windows.astype(np.float32)

    def with_jump(windows, observed):
        return projected(windows, observed) + 0.3 * (1 - observed)

    plain, changed = (at_trained_level(f, 0.4)(windows, observed) for f in (projected, with_jump))
    seen = observed == 1
    np.testing.assert_allclose(changed[seen], plain[seen], atol=1e-5)
    assert np.abs(changed - plain)[~seen].min() > 0.1


@pytest.mark.parametrize("sign", [1, -1])
def test_a_network_that_knows_one_polarity_restores_both(sign):
    """An inverted sawtooth is another sound, unlike an inverted sinusoid. Neither is too loud."""
    sawtooth = np.stack([np.roll(-2 * TIME * 250 % 1 - 0.5, shift) for shift in range(0, 64, 4)])

    def knows_one_polarity(windows, observed):
        fits = (windows @ sawtooth.T) * (windows.std(1) < 0.42)[:, None]
        return np.maximum(fits.max(1), 0)[:, None] * sawtooth[fits.argmax(1)] / 42

    windows = (sign * sawtooth).astype(np.float32)
    result = at_trained_level(knows_one_polarity, 0.4)(windows, np.ones_like(windows))
    np.testing.assert_allclose(result, windows, atol=1e-3)


def test_the_mean_of_a_note_does_not_spill_into_a_rest():
    """The windows of the tone have means, which say little about the offset of the rest."""
    tone = 0.5 * np.sin(ANGLES[1] * 1.02)
    dither = 1e-5 * np.random.default_rng(0).standard_normal((64, TIME.size))
    windows = (dither + np.where(np.arange(64)[:, None] < 32, tone, 0)).astype(np.float32)
    result = at_trained_level(projected, 0.4)(windows, np.ones_like(windows))
    assert np.abs(tone.mean()) > 1e-3 and np.abs(result[32:]).max() < 1e-5


def test_the_mean_of_a_low_tone_is_no_offset():
    """The windows have 1.3 periods, so their means differ. Together they show the real offset."""
    angle = 2 * np.pi * 1.3 * np.arange(512) / 512
    basis = np.stack([np.sin(angle), np.cos(angle), np.ones(512)])

    def low_tone(windows, observed):
        return (windows @ np.linalg.pinv(basis))[:, :2] @ basis[:2]

    tones = np.sin(angle + np.linspace(0, 20, 64)[:, None])
    windows = (tones + 0.2).astype(np.float32)
    result = at_trained_level(low_tone, 0.4)(windows, np.ones_like(windows))
    assert np.ptp(tones.mean(1)) > 0.3
    np.testing.assert_allclose(result, windows, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_shared_products_give_the_same_result_in_float32(offset):
    """A network with biases, some windows with gaps, and one that observes nothing."""
    rng, names = np.random.default_rng(0), ("input_size", "hidden", "latent", "components")
    config = dict(zip(names, (512, (32, 16), 5, 2)), likelihood="gaussian", activation="relu")
    shapes = weight_shapes(config).items()
    weights = {name: 0.1 * rng.standard_normal(shape, np.float32) for name, shape in shapes}
    network, given = DenseNetwork(config, weights), []

    def plainly(windows, observed):
        given.append(windows.dtype)
        return network(windows, observed)

    observed = np.ones((40, 512), np.float32)
    observed[::2, 100:180] = observed[7] = 0
    known = network(rng.standard_normal(observed.shape))
    windows = np.float32(known + 0.01 * rng.standard_normal(known.shape) + offset) * observed
    expected = at_trained_level(plainly, 0.4)(windows, observed)
    result = at_trained_level(network, 0.4)(windows, observed)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert expected.std() > 0.1 and {result.dtype, *given} == {np.dtype(np.float32)}


def test_partials_that_an_output_lacks_are_not_explained():
    """Energies 4 : 1. Noise of four times the energy changes little."""
    parts = np.sin(2 * np.pi * np.outer([220.0, 1700.0], np.arange(2048) / 16000))
    tones, output = np.tile(2 * parts[0] + parts[1], (40, 1)), np.tile(2 * parts[0], (40, 1))
    noise = np.random.default_rng(0).standard_normal(tones.shape)
    observed = np.ones_like(tones)
    for level, scale in ((0.0, 1), (0.1, 1), (3.0, 1), (0.1, 1e-4), (0.1, 1e4)):
        sound = tones + level * noise
        fractions = explained_fractions(scale * sound, observed, scale * output)
        assert fractions.mean() == pytest.approx(0.8, abs=0.02)
    assert explained_fractions(noise, observed, output).size < 4


def test_an_output_that_is_mostly_in_the_gap_is_not_amplified():
    """It has 0.01% of its power where the sound is observed, so its factor means nothing."""
    observed = np.ones((8, TIME.size), np.float32)
    observed[:, 100:] = 0
    signs = np.where(np.arange(TIME.size) % 2, 1, -1)
    drawn = np.float32(np.where(observed == 1, 0.01 * signs, 1))
    windows = np.float32(observed * signs)
    restored = at_trained_level(lambda *_: drawn, 0.4)(windows, observed)
    assert np.abs(restored[:, 100:]).max() < 1  # 100 without a limit


@pytest.mark.parametrize("level", [1e-13, 1e-21])
def test_windows_of_almost_zeros_do_not_count_as_sound(level):
    """A rendered sound of floats may fade out until nothing is left."""
    tones = np.tile(np.sin(2 * np.pi * 440 * np.arange(2048) / 16000), (4, 1)).astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert not explained_fractions(
            np.float32(level) * tones, np.ones_like(tones), 1e-3 * tones
        ).size


def fitted(windows, observed):
    """Fit the two tones to the observed samples by least squares."""
    seen = [basis @ np.diag(known) for basis, known in zip([BASIS] * len(windows), observed)]
    weights = [np.linalg.lstsq(each.T, window)[0] for each, window in zip(seen, windows)]
    return np.float32(weights @ BASIS)


@pytest.mark.parametrize("seen", [0, 1, 40])  # of 512 samples
@pytest.mark.parametrize("level", [1e-3, 1, 1e3])
def test_windows_with_few_samples_have_no_say_in_the_offset(seen, level):
    """A gap may be longer than a window."""
    observed = np.ones((40, TIME.size), np.float32)
    observed[15:22, seen:] = 0
    tones = np.float32(level * (np.tile(np.sin(ANGLES[1]), (40, 1)) + 0.5))
    noise = np.float32(0.05 * level * np.random.default_rng(0).standard_normal(tones.shape))
    result = at_trained_level(fitted, 0.4)((tones + noise) * observed, observed)
    whole = observed.all(1)
    np.testing.assert_allclose(result[whole], tones[whole], atol=0.03 * level)
    others = np.where(whole[:, None], tones, -3 * tones)
    again = at_trained_level(fitted, 0.4)((others + noise) * observed, observed)
    np.testing.assert_allclose(again[whole], result[whole], atol=1e-6 * level)


def test_an_offset_has_no_influence_over_two_windows_away():
    """Pieces of a sound are restored with as much sound around them. Windows begin 8 per window."""
    rng = np.random.default_rng(0)
    windows = np.sin(ANGLES[1]) + 0.1 * rng.standard_normal((81, TIME.size))
    other = windows + (np.arange(81) == 40)[:, None]
    before, after = (
        at_trained_level(projected, 0.4)(np.float32(part), np.ones(part.shape, np.float32))
        for part in (windows, other)
    )
    distances = np.arange(81)[(before != after).any(1)] - 40
    assert set(range(-8, 9)) <= set(distances) <= set(range(-16, 17))


def test_an_output_that_is_softer_where_observed_has_its_level():
    """It has 19% of its mean power there, as a note that fades in."""
    observed = np.ones((8, TIME.size), np.float32)
    observed[:, 128:] = 0  # two periods are left
    swelling = np.float32(np.where(observed == 1, 0.4, 1) * np.sin(ANGLES[1]))
    result = at_trained_level(lambda windows, observed: swelling, 0.4)(
        swelling * observed, observed
    )
    np.testing.assert_allclose(result, swelling, atol=1e-3)
