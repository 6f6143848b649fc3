"""Figures, HTML pages and the last line that a run prints."""
