"""One line that compares a run's score with a baseline and, if there is one, the oracle.

rows: the run's final table, one dict per method. The input is first. An oracle, if any, is last.
"""

import math

from harness.run_folder import METHOD


def sounds(rows):
    """Compare the model with the oracle (built-in notes) or with autoregression (recordings)."""
    methods = {row["method"]: row for row in rows}
    if rows[-1]["method"].startswith("oracle"):
        snr, oracle = methods[METHOD]["snr_db"], rows[-1]["snr_db"]
        linear = _difference(snr, methods["linear interpolation"]["snr_db"], digits=0)
        score = f"SNR of windows {snr:.1f} dB: {_difference(snr, oracle)} the oracle"
        return f"{score}, {linear} linear interpolation"
    if not math.isfinite(rows[0]["long_snr_db"]):
        snr = methods[METHOD]["long_snr_db"]
        return f"SNR of the long sound {snr:.1f} dB ({METHOD}); its input was not corrupted"
    column, where = "long_snr_db", "of the long sound"
    if math.isfinite(rows[0]["long_gap_snr_db"]):
        column, where = "long_gap_snr_db", "in the gaps of the long sound"
    ours, classic = (_best(rows, start, column) for start in (METHOD, "autoregression"))
    difference = _difference(ours[column], classic[column])
    score = f"{ours[column]:.1f} dB ({ours['method']})"
    return f"SNR {where} {score}: {difference} {classic['method']}"


def digits(rows):
    """Compare the model with the nearest training image."""
    column = "hole_mse_over_mean_fill"
    ours = _best(rows, METHOD, column, least=True)
    if not math.isfinite(ours[column]):
        model = next(row for row in rows if row["method"] == METHOD)
        return f"squared error of the image {model['mse']:.4f} (input: {rows[0]['mse']:.4f})"
    nearest = next(row for row in rows if "nearest" in row["method"])
    compared = "better" if ours[column] < nearest[column] else "worse"
    kind = nearest["method"].split()[-1]
    return (
        f"squared error in the hole {ours[column]:.2f} times the mean fill's ({ours['method']}): "
        f"{compared} than the nearest {kind}'s ({nearest[column]:.2f})"
    )


def _best(rows, start, column, least=False):
    """Return the row with the best score among the methods whose names start with `start`."""
    rows = (row for row in rows if row["method"].startswith(start))
    return (min if least else max)(rows, key=lambda row: row[column])


def _difference(ours, theirs, digits=1):
    return f"{abs(ours - theirs):.{digits}f} dB {'above' if ours > theirs else 'below'}"
