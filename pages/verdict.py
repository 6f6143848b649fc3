"""Whether a run is good, in one line: its score beside what it must beat and the best there can be."""

import math

from harness.run_folder import METHOD


def verdict(rows):
    """The line on a run's table: dicts of a method and its scores, from the input to the best there can be."""
    return (_sounds if "long_snr_db" in rows[0] else _images)(
        {row["method"]: row for row in rows}, rows
    )


def _sounds(named, rows):
    interpolated, best = named["linear interpolation"], rows[-1]
    if best["method"].startswith("oracle"):
        snr = named[METHOD]["snr_db"]
        straight = _difference(snr, interpolated["snr_db"], digits=0)
        return f"{snr:.1f} dB: {_difference(snr, best['snr_db'])} the oracle, {straight} linear interpolation"
    if not math.isfinite(rows[0]["long_snr_db"]):
        return f"{named[METHOD]['long_snr_db']:.1f} dB of the long sound (DVAE), of which nothing was damaged"
    ours = [row for row in rows if row["method"].startswith(METHOD)]
    classics = [row for row in rows if row["method"].startswith("autoregression")]
    column = "long_gap_snr_db" if math.isfinite(rows[0]["long_gap_snr_db"]) else "long_snr_db"
    where = "in the gaps of the long sound" if column == "long_gap_snr_db" else "of the long sound"
    ours, classic = (max(group, key=lambda row: row[column]) for group in (ours, classics))
    compared = f"{_difference(ours[column], classic[column])} {classic['method']}"
    return f"{ours[column]:.1f} dB {where} ({ours['method']}): {compared}"


def _images(named, rows):
    (nearest,) = (row for row in rows if "nearest" in row["method"])
    ours = min(
        (row for row in rows if row["method"].startswith(METHOD)),
        key=lambda row: row["hole_mse_over_mean_fill"],
    )
    error, nearest_error = (row["hole_mse_over_mean_fill"] for row in (ours, nearest))
    if not math.isfinite(error):
        return f"squared error {named[METHOD]['mse']:.4f}; that of the input {rows[0]['mse']:.4f}"
    compared = "better" if error < nearest_error else "worse"
    kind = nearest["method"].rsplit(maxsplit=1)[-1]
    return (
        f"{error:.2f} of the mean fill's squared error in the hole ({ours['method']}): "
        f"{compared} than the nearest {kind} ({nearest_error:.2f})"
    )


def _difference(ours, theirs, digits=1):
    return f"{abs(ours - theirs):.{digits}f} dB {'above' if ours > theirs else 'below'}"
