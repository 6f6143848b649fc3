"""Mend sounds or images of your own with a model that one of the two experiments has trained.

    python denoise.py plots/sound chopped.wav -o mended.wav
    python denoise.py plots/sound recordings -o mended --keep       # a folder; only the gaps are replaced
    python denoise.py plots/mnist torn.png -o whole.png --mask hole.png

A sound keeps its length, rate, channels and format, whatever rate the model was trained at; an image its size.
"""

import bisect
import contextlib
import re
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

import run
import sound_files

SOUNDS = sound_files.SUFFIXES  # looked for in folders
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
GAP_SECONDS = 0.001  # exact zeros for at least this long are a gap; what is longer than a window is silence
GAP_JUMP = 0.01  # of the channel's peak: a gap begins or ends with at least such a jump, a fade-out does not
SILENCE_DB = -50.0  # relative to the mean power: what is below does not count for a sound's level
FRAMES_A_BLOCK = 1 << 16  # read at once
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}  # what libsndfile would round down to


def read_flags():
    flags = run.Flags(description=__doc__.splitlines()[0])
    add = flags.add_argument
    add("model", type=Path, metavar="MODEL", help="the folder of a finished run, or its model.keras")
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="a sound or image, or a folder of them")
    add("-o", "--out", type=Path, required=True, help="a file for one input file, else a folder")
    add("--keep", action="store_true", help="replace only what is missing; the rest stays bit for bit")
    add("--gaps", type=Path, help="text file: start and end of a gap in seconds, a line each; else runs of zeros")
    add("--mask", type=Path, help="image of the input's size, white where it is missing; else where it is transparent")
    return flags.parse_intermixed_args()


def load(path):
    """A trained model, its `reconstruct` a graph: called block after block, it takes half the time."""
    import models
    from quiet_tensorflow import tf

    model = models.load_model(path)
    model.reconstruct = tf.function(model.reconstruct, input_signature=[tf.TensorSpec((None, model.input_size))])
    return model


def plan(inputs, out, protected):
    """Pairs (source, destination) for files and folders, in order. OSError for what cannot be done or would destroy."""
    pairs = []
    for path in inputs:
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SOUNDS + IMAGES]
            inside = [file for file in inside if file.is_file() and not file.name.startswith(".")]
            if path.resolve() in out.resolve().parents:  # results of an earlier run are no inputs
                inside = [file for file in inside if out.resolve() not in file.resolve().parents]
            if not inside:
                raise OSError(f"{path}: no sounds or images in this folder; looked for {' '.join(SOUNDS + IMAGES)}")
            pairs += [(file, out / file.relative_to(path)) for file in inside]
        elif path.exists() and not path.is_file():
            raise OSError(f"{path}: neither a file nor a folder")
        else:
            path.stat()  # raises what the system has to say
            single = len(inputs) == 1 and not out.is_dir()
            if single and out.suffix.lower() != path.suffix.lower():
                raise OSError(f"{out}: the result has the input's format; give it a name that ends in {path.suffix}")
            pairs.append((path, out if single else out / path.name))
    taken = {}
    for source, destination in pairs:
        if destination in taken:
            raise OSError(f"{source}: would become {destination}, as would {taken[destination]}; do one at a time")
        taken[destination] = source
    originals = {(s.st_dev, s.st_ino): path for path in [*taken.values(), *protected] for s in [path.stat()]}
    for destination in taken:
        if destination.exists() and (here := destination.stat()) and (here.st_dev, here.st_ino) in originals:
            raise OSError(f"{destination}: is the input {originals[here.st_dev, here.st_ino]}; give another --out")
    return pairs


def read_gaps(path, rate, frames):
    """The gaps a text file names, (n, 2) in samples. OSError for a line that is not one of this sound."""
    gaps = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            start, end = (float(word) for word in re.split(r"[\s,;]+", line.strip())[:2])
        except ValueError:
            raise OSError(f"{path}: line {number} is not a start and an end in seconds, such as 1.25, 1.30") from None
        if not 0 <= start < end <= frames / rate + 0.001:
            raise OSError(f"{path}: line {number}: {start:g} to {end:g} s is no part of {frames / rate:.3f} s")
        gaps.append((round(start * rate), min(round(end * rate), frames)))
    return np.sort(np.array(gaps, int).reshape(-1, 2), axis=0)  # in any order, overlapping or not: the same samples


def read_on(sound, dtype="float64"):
    """An open sound file from where it is to its end: blocks (n, channels).

    `SoundFile.blocks` would go on to where the header says a file ends that was cut short, with whatever is in memory.
    """
    while len(block := sound.read(FRAMES_A_BLOCK, dtype, always_2d=True)):
        yield block


def find_gaps(sound, longest):
    """Gaps and silences of each channel, lists of (n, 2) in samples, and the number of samples. OSError for NaN.

    Both are runs of exact zeros. A gap has at least GAP_SECONDS and at most `longest` samples, lies between two
    sounds and begins or ends with a jump. Longer runs, and those at the beginning and the end, are silence.
    """
    channels, frames = sound.channels, 0
    last, peak = np.ones((1, channels)), np.zeros(channels)
    edges, runs = [np.zeros((0, 2))] * channels, [[np.zeros((0, 2, 2))] for _ in range(channels)]
    for block in read_on(sound):
        if not np.isfinite(block).all():
            raise OSError("has samples that are not finite numbers; make them 0 and it can be mended")
        for channel, values in enumerate(np.concatenate([last, block]).T):
            at = np.flatnonzero(np.diff(values == 0))  # a run begins or ends after each of these
            found = np.stack([frames + at, np.abs(values[at + 1] - values[at])], 1)  # where, and how far it jumps
            found = np.concatenate([edges[channel], found])
            whole = found[: len(found) // 2 * 2].reshape(-1, 2, 2)
            runs[channel].append(whole[whole[:, 1, 0] - whole[:, 0, 0] >= GAP_SECONDS * sound.samplerate])
            edges[channel] = found[2 * len(whole) :]
        last, peak, frames = block[-1:], np.maximum(peak, np.abs(block).max(0)), frames + len(block)
    gaps, silences = [], []
    for channel in range(channels):
        if len(edges[channel]):
            runs[channel].append(np.stack([edges[channel], [[frames, 0]]], 1))
        where, jumps = np.moveaxis(np.concatenate(runs[channel]), 2, 0)
        silent = (where[:, 0] == 0) | (where[:, 1] == frames) | (where[:, 1] - where[:, 0] > longest)
        silences.append(where[silent].astype(int))
        gaps.append(where[~silent & (jumps.max(1) >= GAP_JUMP * peak[channel])].astype(int))
    return gaps, silences, frames


def inside(stretches, first, end):
    """Which of the samples first to end lie in one of the stretches (n, 2), both columns sorted: (end - first,), bool.

    It looks at those stretches alone, so that a block's time does not grow with all there are.
    """
    starts, ends = stretches.T
    within = np.zeros(end - first, bool)
    for start, stop in stretches[bisect.bisect_right(ends, first) : bisect.bisect_left(starts, end)] - first:
        within[max(start, 0) : stop] = True
    return within


def resample(blocks, channels, old_rate, new_rate):
    """Blocks (n, channels), float32, from one rate in Hz to another, without delay."""
    if old_rate == new_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(old_rate, new_rate, channels)
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def level(read, samples, size):
    """RMS of a sound without what is missing, and without pieces of `size` samples that are silent; 0 for none."""
    pieces = []
    for first in range(0, samples, 1024 * size):
        end = min(first + 1024 * size, samples)
        values, mask = (np.pad(part, (0, -(end - first) % size)).reshape(-1, size) for part in read(first, end))
        pieces.append([(values**2).sum(1), (1 - mask).sum(1)])
    energy, shown = np.concatenate(pieces, 1, dtype=float)
    loud = energy > 10 ** (SILENCE_DB / 10) * energy.sum() / max(shown.sum(), 1) * shown
    return np.sqrt(energy[loud].sum() / shown[loud].sum()) if loud.any() else 0.0


def without_gaps(sound, gaps):
    """A sound file just opened, its gaps made zeros: blocks (n, channels), float32."""
    first = 0
    for block in read_on(sound, "float32"):
        missing = [inside(stretches, first, first + len(block)) for stretches in gaps]
        yield np.where(np.stack(missing, 1), np.float32(0), block)
        first += len(block)


def mend_channel(model, file, hidden, samples):
    """Mend one channel at the model's rate, float32 in a file; yields it piece by piece, (n,).

    hidden: what the network is not to see, stretches (n, 2). Meanwhile the sound has the level the model was
    trained at.
    """
    import audio_utils
    from sound_dvae import HOPS_A_WINDOW

    def read(first, end):
        file.seek(4 * first)
        values = np.frombuffer(file.read(4 * (end - first)), np.float32)
        mask = inside(hidden, first, end)
        return gain * np.pad(values, (0, end - first - values.size)) * ~mask, mask

    window, gain = model.input_size, np.float32(1)
    trained_level = model.about.get("rms", audio_utils.RMS)
    gain = np.float32(trained_level / (level(read, samples, window // 4) or trained_level))
    for piece in audio_utils.mend_blocks(read, samples, model.reconstruct, window, window // HOPS_A_WINDOW):
        yield piece / gain


def mend_sound(model, source, destination, gap_file=None, keep=False):
    """Mend a sound file, in memory that does not grow with its length; one line on what was done. OSError if it cannot.

    Each channel is mended on its own.
    """
    window, model_rate = model.input_size, model.about["sample_rate"]
    with contextlib.ExitStack() as opened:
        # Once to look for gaps, once to be mended, once to be compared.
        first_look, sound, beside = (opened.enter_context(sound_files.ReadForward(source)) for _ in range(3))
        rate, channels = sound.samplerate, sound.channels
        gaps, silences, frames = find_gaps(first_look, window / model_rate * rate)
        if not frames:
            raise OSError("holds no samples")
        if gap_file:
            gaps = [read_gaps(gap_file, rate, frames)] * channels

        # At the model's rate: on the disk the result goes to, a file without a name for each channel.
        files = [opened.enter_context(tempfile.TemporaryFile(dir=destination.parent)) for _ in range(channels)]
        for block in resample(without_gaps(sound, gaps), channels, rate, model_rate):
            for file, values in zip(files, block.T):
                file.write(values.tobytes())
        ratio = model_rate / rate
        samples = max(window, int(np.ceil(frames * ratio)) + 1)  # more than there are, so that none is lacking later
        mended = []
        for file, *stretches in zip(files, gaps, silences):
            starts, ends = np.concatenate([*stretches, [[frames, 2 * samples / ratio]]]).T * ratio
            hidden = np.sort(np.stack([np.floor(starts), np.ceil(ends)], 1).astype(int), axis=0)
            mended.append(mend_channel(model, file, hidden, samples))
        mended = resample((np.stack(pieces, 1) for pieces in zip(*mended)), channels, model_rate, rate)

        result = opened.enter_context(run.replacing(destination))
        like = {"format": sound.format, "subtype": sound.subtype, "endian": sound.endian}
        result = opened.enter_context(soundfile.SoundFile(result, "w", rate, channels, **like))
        full_scale = 2.0 ** (BITS.get(sound.subtype, 32) - 1)
        first = clipped = 0
        bar = opened.enter_context(tqdm(desc=source.name, total=frames, unit_scale=True, leave=False, disable=None))
        for block in mended:
            original = beside.read(len(block), always_2d=True)
            end = first + len(original)
            missing, silent = (np.stack([inside(s, first, end) for s in part], 1) for part in (gaps, silences))
            block = np.where(silent & ~missing, 0.0, block[: len(original)])
            new = missing | (not keep)
            if sound.subtype not in ("FLOAT", "DOUBLE"):
                clipped += np.count_nonzero((np.abs(block) > 1) & new)
                block = np.round(block * full_scale).clip(-full_scale, full_scale - 1) / full_scale
            result.write(np.where(new, block, original))
            first = end
            bar.update(len(original))
    count, share = sum(map(len, gaps)), sum(np.ptp(stretches, axis=1).sum() for stretches in gaps) / frames / channels
    what = f"{count} gaps, {share:.1%} missing" if count else "nothing missing" + ("" if keep else ", denoised")
    what += f", {clipped} samples clipped" if clipped else ""
    return f"{frames / rate:.2f} s, {rate} Hz, {channels} channel{'s' * (channels > 1)}: {what}"


def read_picture(path):
    """An image file as Pillow has it, turned as its EXIF data say. OSError for whatever is wrong with it."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = Image.open(file)
            if getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"{image.n_frames} frames")
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            return image
    except Exception as error:  # Pillow raises nearly everything for a broken file
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
        raise OSError(f"not a single image that Pillow reads whole ({reason.splitlines()[0]})") from error


def mend_image(model, source, destination, mask_file=None, keep=False):
    """Mend an image file; one line on what was done. OSError if it cannot."""
    image = read_picture(source)
    size, (height, width) = image.size, model.about["shape"]  # PIL's sizes are (width, height)
    if abs(size[0] * height - size[1] * width) > max(width, height):
        raise OSError(f"{size[0]} x {size[1]} pixels; crop it to the shape of the model's {width} x {height}")
    if keep and image.mode[0] in "IF":
        raise OSError("has more than 8 bits, of which --keep would lose some; leave out --keep or convert it")
    if image.mode[0] == "I":  # 16 bits, of which Pillow's own conversion cuts the upper 8 off
        image_format, image = image.format, Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        image.format = image_format
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    hole = alpha == 0
    if mask_file:
        mask = read_picture(mask_file).convert("L")
        if mask.size != size:
            raise OSError(f"{size[0]} x {size[1]} pixels, but {mask_file} has {mask.size[0]} x {mask.size[1]}")
        hole = np.asarray(mask) >= 128
    grey = np.asarray(image.convert("L")) / np.float32(255) * alpha / 255 * ~hole

    # The network gets the size it knows, and black where a pixel's own area is missing, if only in part. To leave out
    # all that bicubic resampling mixes with the hole as well would cost more than it gives (as with sounds).
    def rescaled(values, size, how=Image.Resampling.BICUBIC):
        return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, how))

    small = rescaled(grey, (width, height)) * (rescaled(hole, (width, height), Image.Resampling.BOX) == 0)
    mended = np.reshape(model.reconstruct(np.clip(small, 0, 1).reshape(1, -1)), (height, width))
    mended = Image.fromarray((255 * rescaled(mended, size)).clip(0, 255).round().astype(np.uint8))
    if keep:
        mode = image.mode if image.mode in ("L", "LA", "RGB", "RGBA") else "RGBA" if (alpha < 255).any() else "RGB"
        kept = image.convert(mode)
        kept.paste(mended.convert(mode), mask=Image.fromarray(hole))
        mended = kept
    with run.replacing(destination) as beside:
        mended.save(beside, image.format, **{"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(image.format, {}))
    what = f"{hole.sum()} of {hole.size} pixels missing" if hole.any() else "nothing missing"
    return f"{size[0]} x {size[1]} pixels: {what}" + ("" if hole.any() or keep else ", denoised")


def main(settings):
    if settings.model.is_dir():
        settings.model /= "model.keras"
    others = [path for path in (settings.model, settings.gaps, settings.mask) if path]
    pairs = plan(settings.inputs, settings.out, others)

    model = load(settings.model)  # only now that the files are known to be there: TensorFlow takes seconds to load
    if model.about["experiment"] == "sound":
        what, suffixes, wrong_flag = "sounds", SOUNDS, settings.mask and "--mask"
    else:
        what, suffixes, wrong_flag = "images", IMAGES, settings.gaps and "--gaps"
    if wrong_flag:
        run.fail(f"argument {wrong_flag}: {settings.model} has learned {what}; leave it out")
    pairs = [pair for pair in pairs if pair[0] in settings.inputs or pair[0].suffix.lower() in suffixes]
    if not pairs:
        run.fail(f"{settings.inputs[0]}: no {what} in it, which {settings.model} has learned")
    failed = False
    for source, destination in tqdm(pairs, unit=" files", leave=False, disable=len(pairs) == 1 or None):
        try:
            if source.suffix.lower() in set(SOUNDS + IMAGES) - set(suffixes):
                raise OSError(f"not of the kind {settings.model} has learned, which is {what}")
            destination.parent.mkdir(parents=True, exist_ok=True)
            if what == "sounds":
                line = mend_sound(model, source, destination, settings.gaps, settings.keep)
            else:
                line = mend_image(model, source, destination, settings.mask, settings.keep)
            tqdm.write(f"{source}: {line}; now {destination}")
        except (OSError, soundfile.SoundFileError) as error:
            failed = True
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, soundfile.SoundFileError):
                reason = f"not a sound that can be read or written whole ({getattr(error, 'error_string', error)})"
            tqdm.write(f"denoise.py: {source}: {reason}", file=sys.stderr)
    if failed:
        raise SystemExit(2)


if __name__ == "__main__":
    with run.one_line_errors():
        main(read_flags())
