"""Figures of the digit experiment at each checkpoint."""

from pages import figures

SHOWN, NEW_ROWS = 16, 6  # images per row; rows of generated ones


def checkpoint(kind, damage, iteration, rows, holes, generated):
    """Return a checkpoint's figures, as {file name: save(path)}.

    kind: "digit" or "image", for titles. rows: {label: (SHOWN, H, W)}. holes: {label: mask}, drawn
    in red. generated: (count, H, W), of which NEW_ROWS rows are drawn.
    """
    state = f"{damage}, after {iteration} iterations"
    restored = figures.digit_rows(f"Held-out {kind}s restored ({state}); red: missing", rows, holes)
    new = generated[: NEW_ROWS * SHOWN].reshape(NEW_ROWS, SHOWN, *generated.shape[1:])
    new = {str(number): row for number, row in enumerate(new, 1)}
    new = figures.digit_rows(f"New {kind}s from the prior ({state})", new)
    return {
        f"reconstruction_{iteration:06d}.png": figures.saver(restored),
        f"generated_{iteration:06d}.png": figures.saver(new),
    }
