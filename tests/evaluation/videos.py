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
