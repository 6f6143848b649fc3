"""Figures of the digit experiment at each checkpoint."""

from functools import partial

from pages import figures

SHOWN, NEW_ROWS = 16, 6  # images per row; rows of generated images


def checkpoint(kind, damage, iteration, rows, mask, outlined, generated):
    """Return a checkpoint's figures as {file name: function save(path)}.

    kind: "digit" or "image", for titles. rows: {label: images (SHOWN, H, W)}. mask (SHOWN, H, W):
    shown in red in the row "corrupted". outlined: True to outline it in every row.
    generated: images (count, H, W); only the first NEW_ROWS * SHOWN are shown.
    """
    state = f"{damage}, after {iteration} iterations"
    title = f"Held-out {kind}s restored ({state}); red: missing"
    restored = figures.digit_rows(title, rows, {"corrupted": mask}, mask if outlined else None)
    new_rows = {str(row + 1): generated[SHOWN * row : SHOWN * (row + 1)] for row in range(NEW_ROWS)}
    new = figures.digit_rows(f"New {kind}s from the prior ({state})", new_rows)
    return {
        f"reconstruction_{iteration:06d}.png": partial(figures.save, pictures=[restored]),
        f"generated_{iteration:06d}.png": partial(figures.save, pictures=[new]),
    }
