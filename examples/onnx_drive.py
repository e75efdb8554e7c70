"""Drive an exported puppet by landmarks: onnxruntime and numpy alone, no Keras.

vpgc export runs/me --format onnx -o me.onnx
vpgc landmarks runs/me --driving friend.mp4 -o drive.npz
python examples/onnx_drive.py me.onnx drive.npz -o frames        # a folder of PNG files
python examples/onnx_drive.py me.onnx drive.npz -o driven.mp4    # with PyAV
"""

import argparse
import json
import struct
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime


def open_puppet(path):
    """The session of an exported puppet, and what the file says of itself."""
    try:
        session = onnxruntime.InferenceSession(path)
    except Exception as error:
        # Of a file that is newer than it, it says that IR version or opset are not supported.
        if "version" not in str(error) and "opset" not in str(error):
            raise
        sys.exit(
            f"onnxruntime {onnxruntime.__version__} is too old for {path}: "
            "pip install --upgrade onnxruntime."
        )
    about = json.loads(session.get_modelmeta().custom_metadata_map["keras_vpgc"])
    return session, about


def windows(frames, about):
    """The frames that the puppet sees with each one: `(n, ...)` -> `(n, context, ...)`.

    Beyond the ends of the clip its first or last frame is repeated.
    """
    places = np.arange(len(frames))[:, None] + np.array(about["context_offsets"])
    return frames[np.clip(places, 0, len(frames) - 1)]


def heatmaps(landmarks, about):
    """Landmarks as antialiased lines: `(n, points, 2)` in [0, 1] -> `(n, s, s)` in [0, 1].

    A pixel is `clip(line_width / 2 + 1/2 - distance, 0, 1)`, the distance being that of its centre
    from the nearest line.
    """
    size = about["heatmap_size"]
    pixels = np.stack(np.meshgrid(*[np.arange(size, dtype="float32") + 0.5] * 2), axis=-1)
    result = np.empty((len(landmarks), size, size), "float32")
    for image, points in zip(result, landmarks * np.float32(size), strict=True):
        least = np.full((size, size), np.inf, "float32")
        for contour, closed in about["contours"]:
            ends = contour[1:] + contour[:1] if closed else contour[1:]
            for first, last in zip(contour, ends, strict=False):
                start, way = points[first], points[last] - points[first]
                along = (pixels - start) @ way / max(float(way @ way), 1e-6)
                nearest = start + np.clip(along, 0, 1)[..., None] * way
                least = np.minimum(least, np.square(pixels - nearest).sum(-1))
        image[:] = np.clip(about["line_width"] / 2 + 0.5 - np.sqrt(least), 0, 1)
    return result


def drive(session, about, landmarks, batch_size=1):
    """Frames of a puppet in the poses of consecutive landmarks.

    Args:
        session, about: See `open_puppet`.
        landmarks: Float32 `(n, points, 2)`, x to the right and y down, in [0, 1] of the puppet's
            crop.
        batch_size: Frames computed at once; at 512 pixels each takes more than 1 GB.

    Yields:
        uint8 RGB `(s, s, 3)`.
    """
    entry = about["input"]["name"]
    around = windows(np.arange(len(landmarks)), about)
    for first in range(0, len(landmarks), batch_size):
        chosen = around[first : first + batch_size]
        if entry == "landmarks":
            batch = landmarks[chosen]
        else:
            seen, back = np.unique(chosen, return_inverse=True)
            drawn = heatmaps(landmarks[seen], about)
            batch = np.moveaxis(drawn[back.reshape(chosen.shape)], 1, -1)
        (images,) = session.run(None, {entry: np.ascontiguousarray(batch)})
        if images.dtype != np.uint8:
            images = np.rint((images + 1) * 127.5).clip(0, 255).astype("uint8")
        yield from images


def read_landmarks(path, about):
    """Landmarks of a file by `vpgc landmarks`, and its frame rate."""
    with np.load(path) as file:
        landmarks = file["landmarks"].astype("float32")
        rate = float(file["frame_rate"]) if "frame_rate" in file else about["frame_rate"]
    points = max(max(contour) for contour, _ in about["contours"]) + 1
    if landmarks.ndim != 3 or landmarks.shape[1:] != (points, 2):
        sys.exit(f"{path} holds landmarks {landmarks.shape}; the puppet needs (n, {points}, 2).")
    if not np.isfinite(landmarks).all() or np.abs(landmarks - 0.5).max() > 1.5:
        sys.exit(f"The landmarks in {path} are not in [0, 1] of the puppet's crop.")
    return landmarks, rate


def write_png(path, image):
    """uint8 RGB `(h, w, 3)` as a PNG file."""
    height, width, _ = image.shape
    # Each row begins with the number of its filter.
    rows = np.concatenate([np.zeros((height, 1), "uint8"), image.reshape(height, -1)], axis=1)

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def write_pngs(folder, frames):
    """Frames as `000000.png` and so on."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        write_png(folder / f"{number:06}.png", frame)


def write_video(path, frames, size, rate):
    """Frames as H.264."""
    import av

    with av.open(str(path), "w") as container:
        # Whoever sees it must be able to know that nobody was filmed.
        container.metadata["comment"] = "Synthetic: a keras_vpgc puppet."
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
        stream.width = stream.height = size
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main(*arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("puppet", help="an exported puppet, .onnx")
    parser.add_argument("landmarks", help="an .npz by vpgc landmarks")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".mp4, or a folder")
    parser.add_argument("--batch-size", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.output.exists():
        sys.exit(f"{options.output} exists: choose another name.")
    session, about = open_puppet(options.puppet)
    landmarks, rate = read_landmarks(options.landmarks, about)
    frames = drive(session, about, landmarks, options.batch_size)
    if options.output.suffix in (".mp4", ".mkv", ".mov"):
        write_video(options.output, frames, about["size"], rate)
    else:
        write_pngs(options.output, frames)
    print(f"{options.output} is ready: {len(landmarks)} frames.")


if __name__ == "__main__":
    main(*sys.argv[1:])
