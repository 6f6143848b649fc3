"""Figures of the digit experiment at each checkpoint."""

from functools import partial

from pages import figures

SHOWN, NEW_ROWS = 16, 6  # images per row; rows of generated images


def checkpoint(kind, damage, iteration, rows, holes, generated):
    """Return a checkpoint's figures as {file name: function save(path)}.

    kind: "digit" or "image", for titles. rows: {label: images (SHOWN, H, W)}. holes: {label: mask},
    shown in red. generated: images (count, H, W); only the first NEW_ROWS * SHOWN are shown.
    """
    state = f"{damage}, after {iteration} iterations"
    restored = figures.digit_rows(f"Held-out {kind}s restored ({state}); red: missing", rows, holes)
    new_rows = {str(row + 1): generated[SHOWN * row : SHOWN * (row + 1)] for row in range(NEW_ROWS)}
    new = figures.digit_rows(f"New {kind}s from the prior ({state})", new_rows)
    return {
        f"reconstruction_{iteration:06d}.png": partial(figures.save, pictures=[restored]),
        f"generated_{iteration:06d}.png": partial(figures.save, pictures=[new]),
    }
