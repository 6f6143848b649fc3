"""The line that says whether a run is good."""

from math import inf, nan

import pytest

from pages.verdict import verdict


def sounds(*rows):
    return [dict(zip(("method", "snr_db", "long_gap_snr_db", "long_snr_db"), row)) for row in rows]


def images(*rows):
    return [dict(zip(("method", "hole_mse_over_mean_fill", "mse"), row)) for row in rows]


INPUT, LINE = ("chopped input", 3, 0, 3), ("linear interpolation", 2.1, -2, 2)


@pytest.mark.parametrize(
    "rows, line",
    [
        (
            sounds(
                INPUT,
                LINE,
                ("DVAE", 29.58, 21, 23),
                ("DVAE, refined", 30.4, 22, 24),
                ("oracle", 31.1, 40, 40),
            ),
            "29.6 dB: 1.5 dB below the oracle, 27 dB above linear interpolation",
        ),
        (
            sounds(INPUT, LINE, ("DVAE", 31.58, 21, 23), ("oracle", 31.1, 40, 40)),
            "31.6 dB: 0.5 dB above the oracle, 29 dB above linear interpolation",
        ),
        (
            sounds(INPUT, LINE, ("DVAE", -4.3, 21, 23), ("oracle", 31.1, 40, 40)),
            "-4.3 dB: 35.4 dB below the oracle, 6 dB below linear interpolation",
        ),
        (
            sounds(
                INPUT,
                LINE,
                ("autoregression", 7, 12, 9),
                ("autoregression + W", nan, 14.5, 17),
                ("DVAE", 11, 13, 1),
            ),
            "13.0 dB in the gaps of the long sound (DVAE): 1.5 dB below autoregression + W",
        ),
        (
            sounds(
                ("chopped input", 3, nan, 3),
                LINE,
                ("autoregression", 7, nan, 9),
                ("DVAE", 11, nan, 19),
            ),
            "19.0 dB of the long sound (DVAE): 10.0 dB above autoregression",
        ),
        (
            images(
                ("input", 3, 1), ("holes filled from the nearest digit", 0.89, 1), ("DVAE", 0.46, 1)
            ),
            "0.46 of the mean fill's squared error in the hole (DVAE): better than the nearest digit (0.89)",
        ),
        (
            images(
                ("input", 3, 1), ("holes filled from the nearest image", 0.4, 1), ("DVAE", 0.46, 1)
            ),
            "0.46 of the mean fill's squared error in the hole (DVAE): worse than the nearest image (0.40)",
        ),
        (
            images(
                ("input", nan, 0.04),
                ("holes filled from the nearest digit", nan, 0.04),
                ("DVAE", nan, 0.0123),
            ),
            "squared error 0.0123; that of the input 0.0400",
        ),
    ],
)
def test_a_run_is_placed_between_what_it_must_beat_and_the_best_there_can_be(rows, line):
    assert verdict(rows) == line


def test_the_best_of_ours_is_compared():
    rows = sounds(
        INPUT,
        LINE,
        ("autoregression", 7, 12, 9),
        ("DVAE", 11, 13, 1),
        ("DVAE + Wiener filter", nan, 15, 9),
    )
    assert (
        verdict(rows)
        == "15.0 dB in the gaps of the long sound (DVAE + Wiener filter): 3.0 dB above autoregression"
    )


def test_a_run_that_damages_nothing_is_judged_without_infinities():
    rows = [
        (name, inf, nan, inf)
        for name in ("chopped input", "linear interpolation", "autoregression")
    ]
    line = verdict(sounds(*rows, ("DVAE", 10, nan, 12)))  # needs: from math import inf, nan
    assert "inf" not in line and "nan" not in line
