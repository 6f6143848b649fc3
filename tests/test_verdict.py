"""The line that sums up a run."""

from math import inf, nan

import pytest

from pages import verdict


def sounds(*rows):
    return [dict(zip(("method", "snr_db", "long_gap_snr_db", "long_snr_db"), row)) for row in rows]


def digits(*rows):
    return [dict(zip(("method", "hole_mse_over_mean_fill", "mse"), row)) for row in rows]


INPUT, LINE = ("chopped input", 3, 0, 3), ("linear interpolation", 2.1, -2, 2)
ORACLE = "oracle: the right note", 31.1, 40, 40
CLASSIC, FILTERED = ("autoregression", 7, 12, 9), ("autoregression + W", nan, 14.5, 17)


@pytest.mark.parametrize(
    "rows, line",
    [
        (
            [("DVAE", 29.58, 21, 23), ("DVAE, refined", 30.4, 22, 24), ORACLE],
            "SNR of windows 29.6 dB: 1.5 dB below the oracle, 27 dB above linear interpolation",
        ),
        (
            [("DVAE", 31.58, 21, 23), ORACLE],
            "SNR of windows 31.6 dB: 0.5 dB above the oracle, 29 dB above linear interpolation",
        ),
        (
            [("DVAE", -4.3, 21, 23), ORACLE],
            "SNR of windows -4.3 dB: 35.4 dB below the oracle, 6 dB below linear interpolation",
        ),
        (
            [CLASSIC, FILTERED, ("DVAE", 11, 13, 1)],
            "SNR in the gaps of the long sound 13.0 dB (DVAE): 1.5 dB below autoregression + W",
        ),
        (
            [CLASSIC, ("DVAE", 11, 13, 1), ("DVAE + Wiener filter", nan, 15, 9)],
            "SNR in the gaps of the long sound 15.0 dB (DVAE + Wiener filter): "
            "3.0 dB above autoregression",
        ),
    ],
)
def test_sounds_are_compared_with_the_best_method(rows, line):
    assert verdict.sounds(sounds(INPUT, LINE, *rows)) == line


def test_recordings_without_gaps_use_the_whole_long_sound():
    rows = ("chopped input", 3, nan, 3), LINE, ("autoregression", 7, nan, 9), ("DVAE", 11, nan, 19)
    line = "SNR of the long sound 19.0 dB (DVAE): 10.0 dB above autoregression"
    assert verdict.sounds(sounds(*rows)) == line


def test_uncorrupted_recordings_are_not_compared():
    """The baselines are then perfect. Their infinite SNR must not appear."""
    methods = "chopped input", "linear interpolation", "autoregression"
    rows = [(method, inf, nan, inf) for method in methods]
    line = verdict.sounds(sounds(*rows, ("DVAE", 10, nan, 12)))
    assert line == "SNR of the long sound 12.0 dB (DVAE); its input was not corrupted"


@pytest.mark.parametrize(
    "kind, error, compared",
    [("digit", 0.89, "better than the nearest digit's (0.89)"),
     ("image", 0.4, "worse than the nearest image's (0.40)")],
)  # fmt: skip
def test_digits_are_compared_with_the_nearest_training_image(kind, error, compared):
    nearest = f"holes filled from the nearest {kind}", error, 1
    rows = digits(("input", 3, 1), nearest, ("DVAE", 0.46, 1), ("DVAE, refined", 0.5, 1))
    line = f"squared error in the hole 0.46 times the mean fill's (DVAE): {compared}"
    assert verdict.digits(rows) == line


def test_digits_without_holes_are_compared_with_their_input():
    nearest = "holes filled from the nearest digit", nan, 0.04
    rows = digits(("input", nan, 0.04), nearest, ("DVAE", nan, 0.0123))
    assert verdict.digits(rows) == "squared error of the image 0.0123 (input: 0.0400)"
