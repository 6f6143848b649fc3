"""Chunks of WAV and AIFF files. Each has four letters, a length and contents."""

import os
import re

import numpy as np

from harness import UserError

BYTE_ORDERS = {b"RIFF": "little", b"RIFX": "big", b"FORM": "big"}  # of WAV and AIFF
# Fewer bytes after the last chunk of a WAV are not taken for samples that its header misses.
UNCOUNTED = 1 << 16
SAMPLES = {b"data", b"SSND"}  # chunks of a WAV and an AIFF
UNKNOWN = 2**31 - 2**16  # bytes; a program that writes to a pipe states such a length or more
# Chunks that describe the old samples, or only make room.
STALE = {b"PEAK", b"levl", b"MD5 ", b"JUNK", b"junk", b"PAD ", b"FLLR", b"ds64"}
EXTENSIBLE, MASK = 40, 20  # bytes of a "fmt " chunk with a speaker mask, and where the mask is


def chunks(file):
    """Yield (name, start, end) of each chunk in an open WAV or AIFF, and nothing for other files.

    start and end are positions of the contents. Ends at bytes that cannot be a chunk.
    """
    file.seek(0)
    order, end = BYTE_ORDERS.get(file.read(4)), 12
    while order:
        file.seek(end)
        head = file.read(9)
        padding = head[:1] == b"\0"  # after an odd number of bytes
        name, length = head[padding : padding + 4], head[padding + 4 : padding + 8]
        if len(length) < 4 or not re.fullmatch(rb"[A-Za-z_(][A-Za-z0-9_) ]{3}", name):
            return
        start = end + padding + 8
        end = start + int.from_bytes(length, order)
        yield name, start, end


def stated_length(path, file):
    """Return the length of the samples in an open WAV or AIFF by its header, relative to the file.

    It is below 1 for a WAV with more samples than its header counts. A recorder that crashes leaves
    a header that counts no samples, or those at its last update. It is above 1 for a file that was
    cut short, and 1 for other files. Raises UserError for several files joined end to end.
    """
    found = list(chunks(file))
    names = [name for name, _, _ in found]
    if BYTE_ORDERS.keys() & names:
        raise UserError(f"{path}: several sounds joined end to end; split them")
    if not SAMPLES & set(names):
        return 1.0
    name, start, end = found[-1]
    length, size = end - start, os.fstat(file.fileno()).st_size
    if size < end:
        return length / max(size - start, 1) if name in SAMPLES and length < UNKNOWN else 1.0
    file.seek(end)
    after = file.read(UNCOUNTED)
    if b"SSND" in names or after.lstrip(b"\0").startswith(b"ID3"):
        return 1.0
    if name == b"data" and not length:  # zeros may be silence
        return float(size == end)
    more = size - end >= UNCOUNTED and any(after)  # zeros are padding
    return length / (size - start) if more else 1.0


def copy_chunks(source, destination):
    """Append to a new WAV or AIFF what only its source has, such as a sampler's loops.

    Also copy the speaker mask. Does nothing if the two differ in format.
    """
    with open(source, "rb") as old, open(destination, "r+b") as new:
        magic = new.read(4)
        if magic != old.read(4) or magic not in BYTE_ORDERS:
            return
        written = {_label(new, *chunk): chunk[1:] for chunk in chunks(new)}
        end = new.seek(0, os.SEEK_END)
        for chunk in chunks(old):
            label, (name, start, stop) = _label(old, *chunk), chunk
            if label not in written and name not in STALE:
                old.seek(start)
                contents = old.read(stop - start)
                new.seek(end + end % 2)
                new.write(name + len(contents).to_bytes(4, BYTE_ORDERS[magic]) + contents)
                end = new.tell()
            elif name == b"fmt " and stop - start == EXTENSIBLE == np.ptp(written[name]):
                old.seek(start + MASK)
                new.seek(written[name][0] + MASK)
                new.write(old.read(4))
        new.seek(4)
        new.write(min(end - 8, 2**32 - 1).to_bytes(4, BYTE_ORDERS[magic]))


def _label(file, name, start, end):
    """Return the name of a chunk. LIST chunks are distinguished by the type of their list."""
    file.seek(start)
    return name + file.read(4) if name == b"LIST" else name
