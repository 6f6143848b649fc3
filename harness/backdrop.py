"""Pictures as pixels (height, width, 4), uint8, whose axes are drawn once.

Axes, ticks and labels take most of the time. Of the pictures that a run draws at every checkpoint they are therefore
drawn once, as a `Backdrop`. Figures are made without pyplot: no window is opened.
"""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image


class Backdrop:
    """A figure to draw upon: what it has already is drawn only once."""

    def __init__(self, figure):
        self.figure, self.canvas = figure, FigureCanvasAgg(figure)
        self.on_top = [own for ax in figure.axes for own in (*ax.spines.values(), ax.title)]
        for own in self.on_top:
            own.set_animated(True)  # left out by `draw`: what is drawn later would cover half of a frame
        self.canvas.draw()
        self.empty = self.canvas.copy_from_bbox(figure.bbox)

    def pixels(self, *artists):
        """The figure with these artists of it, the last on top. It is then without them, for others to be drawn."""
        self.canvas.restore_region(self.empty)
        for artist in artists:
            self.figure.draw_artist(artist)
            artist.remove()
        for own in self.on_top:
            self.figure.draw_artist(own)
        return np.array(self.canvas.buffer_rgba())


def save(path, pictures):
    """Write pictures, one below the other, as PNG."""
    stacked = np.concatenate(pictures)
    Image.fromarray(stacked).save(path, "png", compress_level=1)  # a fifth larger than usual, much faster
