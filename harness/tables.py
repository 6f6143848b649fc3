"""Tables of scores. Rows are dicts. Columns are their keys in order of first appearance."""

import csv


def write_csv(path, rows):
    """Write rows as CSV with full precision."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _columns(rows))
        table.writeheader()
        table.writerows({name: _exact(value) for name, value in row.items()} for row in rows)


def print_table(rows):
    """Print rows in aligned columns, with four significant digits."""
    columns = _columns(rows)
    lines = [columns] + [[_short(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for name, *values in lines:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:])]
        print(name.ljust(widths[0]), *cells, sep="  ")


def score_line(row, columns):
    """Return the given columns of a row as one line, such as "iteration 100   kl 8.5"."""
    return "   ".join(f"{name} {_short(row[name])}" for name in columns if name in row)


def _columns(rows):
    return list(dict.fromkeys(name for row in rows for name in row))


def _exact(value):
    return value if isinstance(value, int | str) else repr(float(value))


def _short(value):
    return str(value) if isinstance(value, int | str) else f"{value:.4g}"
