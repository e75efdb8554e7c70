"""The sound of a video, for another that shows the same seconds."""

import contextlib
from fractions import Fraction
from pathlib import Path

import numpy as np

from keras_vpgc.data import video
from keras_vpgc.errors import writing

CHUNK = 1024  # samples of a frame of AAC


def add_sound(silent, source, target, start: float = 0.0, spans=None) -> bool:
    """Copy a video and give it another one's sound, as AAC.

    Sample 0 of the result is the one that the source plays when its picture of second `start`
    appears; the sound ends with the picture. Nothing is written where the source has no sound that
    can be decoded. The silent video's metadata are kept.

    Args:
        silent: The video whose picture is taken as it is.
        source: The video whose sound is taken.
        target: The file to write, of the silent one's format.
        start: Second of the source, from its first frame on, at which the sound begins.
        spans: Pairs of seconds of the source, rising, whose sounds follow each other, in place of
            `start`: for a picture from which parts were left out.

    Returns:
        Was a file written?

    Raises:
        VPGCError: if a video cannot be read or the target cannot be written.

    Example:

    ```python
    add_sound("driven.mp4", "friend.mov", "with_sound.mp4")
    ```
    """
    import av

    if not video.probe(source).has_sound:
        return False
    seconds = video._index(silent).info.duration  # of one frame too
    origin = _origin(source)
    target = Path(target)
    try:
        with (
            video.open_container(source) as sounding,
            video.open_container(silent) as showing,
            writing(target),
            video.open_target(target, _metadata(showing)) as made,
        ):
            picture = showing.streams.video[0]
            shown = made.add_stream_from_template(picture)
            heard = made.add_stream("aac", rate=sounding.streams.audio[0].rate)
            heard.layout = "stereo" if sounding.streams.audio[0].channels > 1 else "mono"
            packets = (packet for packet in showing.demux(picture) if packet.dts is not None)
            packet = next(packets, None)
            spans = [(start, start + seconds)] if spans is None else spans
            placed = [(origin + a, origin + b) for a, b in spans]
            for frame in _chunks(sounding, heard, placed, seconds):
                while packet is not None and packet.dts * packet.time_base <= frame.time:
                    packet.stream = shown
                    made.mux(packet)
                    packet = next(packets, None)
                made.mux(heard.encode(frame))
            while packet is not None:
                packet.stream = shown
                made.mux(packet)
                packet = next(packets, None)
            made.mux(heard.encode())
    except av.FFmpegError:
        target.unlink(missing_ok=True)
        return False
    return True


def read_sound(path, seconds: float, rate: int = 48000) -> np.ndarray | None:
    """The sound that goes with the first seconds of the picture.

    Args:
        path: A video file.
        seconds: How much of it.
        rate: Samples a second.

    Returns:
        float32 `(2, n)`, silent where the file has nothing; `None` without any sound.

    Example:

    ```python
    read_sound("friend.mp4", 2).shape  # (2, 96000)
    ```
    """
    sound = np.zeros((2, round(seconds * rate)), "float32")
    place = 0
    origin = _origin(path)
    with video.open_container(path) as container:
        if not container.streams.audio or container.streams.audio[0].codec_context is None:
            return None
        any_sound = False
        for samples in _samples(container, rate, "stereo", origin):
            any_sound = True
            samples = samples[:, : sound.shape[1] - place]
            sound[:, place : place + samples.shape[1]] = samples
            place += samples.shape[1]
            if place == sound.shape[1]:
                break
    return sound if any_sound else None


def _origin(path):
    """The second of the container at which the picture begins."""
    with video.open_container(path) as opened:
        first = next(opened.decode(video=0), None)
        return (first and first.time) or 0.0


def _metadata(container):
    """What a video says of itself, but for what the container's own writer says."""
    names = ("major_brand", "minor_version", "compatible_brands", "encoder")
    return {k: v for k, v in video.metadata_of(container).items() if k.lower() not in names}


def _chunks(container, stream, spans, seconds):
    """Frames of 1024 samples of the spans, in seconds of the container, for so many seconds."""
    import av

    rate, layout = stream.rate, stream.layout.name
    left = round(seconds * rate)
    given = 0
    kept = np.zeros((len(stream.layout.channels), 0), "float32")

    def chunk(samples):
        nonlocal given
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, given, Fraction(1, rate)
        given += samples.shape[1]
        return frame

    for samples in _within(_samples(container, rate, layout, spans[0][0]), spans, rate):
        kept = np.concatenate([kept, samples[:, :left]], axis=1)
        left -= min(left, samples.shape[1])
        while kept.shape[1] >= CHUNK:
            yield chunk(kept[:, :CHUNK])
            kept = kept[:, CHUNK:]
        if not left:
            break
    if kept.shape[1]:
        yield chunk(kept)


def _within(samples, spans, rate):
    """What lies in the spans, of samples that begin with the first of them."""
    origin = spans[0][0]
    places = [[round((t - origin) * rate) for t in span] for span in spans]
    here = 0
    for part in samples:
        following = here + part.shape[1]
        for start, stop in places:
            if start < following and stop > here:
                yield part[:, max(start - here, 0) : stop - here]
        here = following
        if here >= places[-1][1]:
            return


def _samples(container, rate, layout, start):
    """All samples from a second of the container on; silence where there are none."""
    import av

    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    have = 0
    place = None  # of the next sample, counted from `start`

    def placed(parts):
        nonlocal have, place
        for samples in (part.to_ndarray() for part in parts):
            ahead = place - have
            place += samples.shape[1]
            if ahead < 0:
                samples = samples[:, -ahead:]
            elif ahead > 0:
                samples = np.pad(samples, ((0, 0), (ahead, 0)))
            have += samples.shape[1]
            if samples.shape[1]:
                yield samples

    # A file that changes its kind of sound ends early.
    with contextlib.suppress(ValueError):
        for decoded in _decoded(container):
            if decoded is None:
                place = None
                continue
            if decoded.time is None:
                continue
            now = round((decoded.time - start) * rate)
            # Stamps are rounded: only a gap that can be heard is one.
            if place is None or abs(now - place) > rate // 20:
                place = now
            yield from placed(resampler.resample(decoded))
        if place is not None:
            yield from placed(resampler.resample(None))


def _decoded(container):
    """The frames of sound that can be decoded, and `None` for a packet that cannot."""
    import av

    packets = container.demux(audio=0)
    # A file that was cut off ends early.
    while (packet := _next(packets)) is not None:
        try:
            yield from packet.decode()
        except av.FFmpegError:
            yield None


def _next(packets):
    import av

    try:
        return next(packets, None)
    except av.FFmpegError:
        return None
