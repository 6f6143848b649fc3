"""Pieces of a long sound, restored in several threads."""

import itertools
import time

import pytest

from harness import threads
from harness.threads import in_threads


def pieces(count, started):
    for number in range(count):
        started.append(number)
        yield number, number + 1


def test_results_keep_the_order_of_their_pieces():
    """Earlier pieces take longer."""

    def slow(first, end):
        time.sleep(0.002 * (20 - first))
        return first, end

    assert list(in_threads(slow, pieces(20, []))) == list(itertools.pairwise(range(21)))


@pytest.mark.parametrize("cores", [1, 2, 100])
def test_few_pieces_are_in_memory(monkeypatch, cores):
    monkeypatch.setattr(threads, "cores", lambda: cores)
    started, ahead = [], []
    for done, _ in enumerate(in_threads(lambda *piece: piece, pieces(50, started))):
        ahead.append(len(started) - done)
    assert max(ahead) == min(cores, threads.MOST) + 1


def test_an_error_in_a_piece_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda first, end: 1 // (3 - first), pieces(9, [])))
