"""Algorithms for recordings, on arrays: gaps, noise, levels, blending."""
