"""Figures, HTML pages and the line that sums up a run."""
