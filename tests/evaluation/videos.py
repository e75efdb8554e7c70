"""Videos made from a clip by known distortions."""

from fractions import Fraction

import av
import cv2
import numpy as np

from keras_vpgc.data.video import VideoWriter, read_frames


def write(path, frames, rate=25.0):
    with VideoWriter(path, rate, crf=10) as video:
        for frame in frames:
            video.write(frame)
    return path


def write_exact(path, frames, rate=25, kind="bgr0"):
    """Lossless: what is read is what was written; `"gray"` as one channel."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = kind
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=kind)))
        container.mux(stream.encode())
    return path


def damage(path, target, numbers):
    """A copy of an MP4 whose packets of these numbers hold nothing that can be decoded."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for start, size in (packets[i] for i in numbers):
        data[start : start + size] = b"\xff" * size
    target.write_bytes(data)
    return target


def frames_of(path, count=None, size=None):
    frames = list(read_frames(path, 0, count))
    if size:
        frames = [cv2.resize(x, (size, size), interpolation=cv2.INTER_AREA) for x in frames]
    return frames


def write_talking(path, colour, seconds=0.6, size=(64, 64), rate=25, beep=None, late=0.0):
    """A plain picture in which a bar moves, with a tone from the second `beep` on.

    The sound track begins `late` seconds after the picture.
    """
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # Whose it is stands in the file.
        container.metadata["title"] = path.stem
        voice = None if beep is None else container.add_stream("aac", rate=44100, layout="mono")
        for i in range(round(seconds * rate)):
            frame = np.full((height, width, 3), colour, "uint8")
            frame[:4, : 1 + i * width // round(seconds * rate)] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
        if voice is not None:
            time = np.arange(round(seconds * 44100)) / 44100
            sound = (0.5 * np.sin(2 * np.pi * 440 * time) * (time >= beep)).astype("float32")
            for place in range(0, len(sound), 1024):
                piece = sound[None, place : place + 1024]
                part = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                part.rate, part.time_base = 44100, Fraction(1, 44100)
                part.pts = place + round(late * 44100)
                container.mux(voice.encode(part))
            container.mux(voice.encode())
    return path
