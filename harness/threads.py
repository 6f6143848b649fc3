"""Work on several pieces of a long sound at once. NumPy releases Python's lock meanwhile."""

import collections
from concurrent.futures import ThreadPoolExecutor

from harness.cli import cores

MOST = 4  # threads; each needs memory for a piece


def in_threads(function, pieces):
    """Yield function(first, end) for each of the pieces (first, end), in their order.

    At most one more piece than there are threads is in memory.
    """
    count, waiting = min(MOST, cores()), collections.deque()
    with ThreadPoolExecutor(count) as threads:
        for piece in pieces:
            waiting.append(threads.submit(function, *piece))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
