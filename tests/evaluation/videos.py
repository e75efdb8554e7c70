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


def write_exact(path, frames, rate=25, grey=False):
    """Lossless: what is read is what was written; grey as one channel."""
    kind = "gray" if grey else "bgr0"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = kind
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=kind)))
        container.mux(stream.encode())
    return path


def frames_of(path, count=None, size=None):
    frames = list(read_frames(path, 0, count))
    if size:
        frames = [cv2.resize(x, (size, size), interpolation=cv2.INTER_AREA) for x in frames]
    return frames
