"""Another background behind the person, or none."""

import contextlib
import os
import re
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import video
from keras_vpgc.data.person import HIGH, LOW, PersonSegmenter
from keras_vpgc.errors import VPGCError, check_writable, missing_extra, writing

COLOURS = {"green": (0, 177, 64), "blue": (0, 71, 187), "white": (255,) * 3, "black": (0,) * 3}
# Encoder, pixel format and options of the video files that hold an alpha channel.
ALPHA_CODECS = {
    ".mov": ("prores_ks", "yuva444p10le", {"profile": "4444", "alpha_bits": "16"}),
    ".webm": ("libvpx-vp9", "yuva420p", {"crf": "18", "b": "0", "row-mt": "1", "cpu-used": "4"}),
}
# Bytes of a PNG file before its second chunk: the signature and IHDR.
HEADER = 8 + 25
# Frames before the one shown that steady its mask, and the difference in grey levels above which a
# pixel has moved.
MEMORY, MOVED = 3, 8.0
# The mask follows the picture's edges in windows of this part of its longer side; the variance of
# colours in [0, 1] below which a window is plain.
EDGE, PLAIN = 1 / 64, 1e-4
# Distance of colours in [0, 1] that tells person from background.
UNLIKE = 0.2


class Background:
    """Puts another background behind the person in consecutive frames, or cuts the person out.

    The segmenter's mask is steadied in time (where the picture has not changed, it is the mean with
    the three frames before), brought to the picture's edges by a guided filter, and what the old
    background left in the colours of half-covered pixels, such as hair, is taken out.

    Args:
        background: `"green"`, `"blue"`, `"white"`, `"black"`, `"#rrggbb"`, the path of a picture
            (it covers the frame; what sticks out is cut off), or `"alpha"`.
        model: See `keras_vpgc.data.person.PersonSegmenter`.

    Attributes:
        warm_up: Frames before the first one that `see` must be shown for a result that does not
            depend on where a job was begun.
        channels: 3 for RGB, 4 for RGB and alpha.

    Raises:
        VPGCError: for a background that is none of these, or what `PersonSegmenter` says.

    Example:

    ```python
    with Background("green") as background:
        for frame in frames:
            writer.write(background(frame))
    ```

    References:
        - He, Sun and Tang, "Guided image filtering", IEEE PAMI 2013.
        - Forte, "Approximate fast foreground colour estimation", ICIP 2021 (blur fusion).
    """

    warm_up = MEMORY

    def __init__(self, background: str | os.PathLike = "green", model=None):
        self.fill = parse_background(background)
        self.channels = 4 if self.fill is None else 3
        self._cover: Any = None
        self._past: deque = deque(maxlen=MEMORY)
        self.segmenter = PersonSegmenter(model)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self) -> None:
        """End the segmenter."""
        self.segmenter.close()

    def see(self, frame) -> None:
        """Take in a frame that is not asked for, to warm up."""
        self._past.append((_grey(frame), self.segmenter(frame)))

    def alpha(self, frame) -> np.ndarray:
        """How much of each pixel is the person, for the next frame.

        Args:
            frame: uint8 RGB `(h, w, 3)`.

        Returns:
            float32 `(h, w)` in [0, 1].
        """
        import cv2

        grey, mask = _grey(frame), self.segmenter(frame)
        total, weight = mask.copy(), np.ones_like(mask)
        for old_grey, old_mask in self._past:
            if old_grey.shape != grey.shape:
                continue
            still = np.exp(-((cv2.absdiff(grey, old_grey) / MOVED) ** 2))
            total += still * old_mask
            weight += still
        self._past.append((grey, mask))
        return refine(total / weight, frame)

    def __call__(self, frame) -> np.ndarray:
        """The next frame with the other background.

        Args:
            frame: uint8 RGB `(h, w, 3)`.

        Returns:
            uint8 `(h, w, 3)`, or RGB with straight alpha `(h, w, 4)`.
        """
        alpha = self.alpha(frame)[..., None]
        person = foreground(frame, alpha[..., 0])
        if self.fill is None:
            return np.concatenate([person, np.rint(255 * alpha).astype("uint8")], axis=-1)
        behind = self._behind(frame.shape[:2])
        return np.rint(behind + alpha * (person - behind)).astype("uint8")

    def _behind(self, shape):
        if self._cover is None or self._cover.shape[:2] != shape:
            self._cover = _covering(self.fill, shape)
        return self._cover


def parse_background(text: str | os.PathLike) -> np.ndarray | None:
    """What a background's name stands for.

    Args:
        text: See `Background`; a `pathlib.Path` is always that of a picture.

    Returns:
        uint8 RGB `(h, w, 3)` of the picture or `(1, 1, 3)` of the colour; `None` for `"alpha"`.

    Raises:
        VPGCError: for a text that is none of these, or a picture that cannot be read.

    Example:

    ```python
    parse_background("#00b140")  # array([[[0, 177, 64]]], dtype=uint8)
    ```
    """
    if _is_name(text):
        if text == "alpha":
            return None
        colour = COLOURS[text] if text in COLOURS else tuple(bytes.fromhex(text[1:]))
        return np.array(colour, "uint8").reshape(1, 1, 3)
    is_path, text = isinstance(text, os.PathLike), str(text)
    if not Path(text).is_file():
        if is_path:
            raise VPGCError(f"There is no picture {text}: give the path of a PNG or JPEG file.")
        raise VPGCError(
            f"There is no background {text!r}: choose {', '.join(COLOURS)}, #rrggbb, alpha or the "
            "path of a picture."
        )
    import cv2

    image = cv2.imread(text, cv2.IMREAD_COLOR)
    if image is None:
        raise VPGCError(f"{text} cannot be read as a picture: give a PNG or JPEG file.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def background_key(background: str | os.PathLike | None) -> str | None:
    """What tells one background from another, for the settings of a job that may go on later.

    Args:
        background: See `Background`; `None` for none.

    Returns:
        The name of a colour or `"alpha"` as it is, SHA-256 of a picture's file, or `None`.

    Raises:
        VPGCError: see `parse_background`.

    Example:

    ```python
    background_key(Path("room.png"))  # "9f86d0..."
    ```
    """
    if background is None:
        return None
    if _is_name(background):
        return background
    parse_background(background)
    return assets.sha256(background)


def _is_name(background) -> TypeGuard[str]:
    """Is it no picture, but a colour or the cutting out?"""
    if not isinstance(background, str):
        return False
    is_hex = re.fullmatch("#[0-9a-fA-F]{6}", background) is not None
    return background in (*COLOURS, "alpha") or is_hex


def refine(mask, frame) -> np.ndarray:
    """Bring a coarse mask to the edges of the picture.

    A band around the mask's edge, and where the mask is unsure, is decided by colour: a pixel there
    lies between the mean colours of what is surely person and surely background nearby, and alpha
    is how far. Where these two colours are alike, or the pixel is like neither, a guided filter
    decides.

    Args:
        mask: float32 `(h, w)` in [0, 1].
        frame: uint8 RGB `(h, w, 3)`.

    Returns:
        float32 `(h, w)` in [0, 1].

    Raises:
        VPGCError: if the OpenCV that is installed has no contributed modules.
    """
    import cv2

    if not hasattr(cv2, "ximgproc"):
        raise missing_extra("opencv-contrib-python", "video")
    mask = np.asarray(mask, "float32")
    radius = max(2, round(EDGE * max(mask.shape)))
    person, behind = _away(mask > HIGH, radius), _away(mask <= LOW, radius)
    guide = frame.astype("float32") / 255
    alpha = cv2.ximgproc.guidedFilter(guide, mask, radius, PLAIN)
    # Means over wide windows need few pixels.
    small = _small(mask.shape, 256)
    reduced = cv2.resize(guide, small, interpolation=cv2.INTER_AREA)
    shares = [
        cv2.resize(v.astype("float32"), small, interpolation=cv2.INTER_AREA)
        for v in (person, behind)
    ]
    rows, columns = np.nonzero(~(person | behind))
    colours = []
    for k in range(2):
        values = np.dstack([reduced * shares[k][..., None], shares[k]])
        values = cv2.GaussianBlur(values, (0, 0), 2.5 * EDGE * max(small))
        colours.append(_sample(values, rows, columns, mask.shape))
    found = np.minimum(colours[0][:, 3], colours[1][:, 3])
    first, second = (c[:, :3] / (c[:, 3:] + 1e-5) for c in colours)
    step, pixels = first - second, guide[rows, columns]
    length = (step**2).sum(axis=-1)
    between = np.clip(((pixels - second) * step).sum(axis=-1) / (length + 1e-6), 0, 1)
    rest = ((pixels - second - between[:, None] * step) ** 2).sum(axis=-1)
    sure = found / (found + 1e-3) * length / (length + UNLIKE**2) * np.exp(-rest / UNLIKE**2)
    result = person.astype("float32")
    guided = alpha[rows, columns]
    result[rows, columns] = np.clip((guided + sure * (between - guided) - LOW) / (HIGH - LOW), 0, 1)
    return result


def foreground(frame, alpha) -> np.ndarray:
    """The person's own colours, without what shines through of the old background.

    Args:
        frame: uint8 RGB `(h, w, 3)`.
        alpha: float32 `(h, w)` in [0, 1].

    Returns:
        uint8 RGB `(h, w, 3)`; where alpha is 0, the person's colours nearby.
    """
    import cv2

    # Both colours change slowly along an edge; the pixels themselves bring the detail.
    small = _small(alpha.shape, 512)
    image = cv2.resize(frame, small, interpolation=cv2.INTER_AREA).astype("float32")
    share = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA)[..., None]
    person = behind = image
    for part in (EDGE, EDGE / 4):
        width = (max(3, round(2 * part * max(small)) | 1),) * 2
        mean = cv2.blur(share, width)[..., None]
        person_mean = cv2.blur(person * share, width) / (mean + 1e-5)
        behind = cv2.blur(behind * (1 - share), width) / (1 - mean + 1e-5)
        rest = image - share * person_mean - (1 - share) * behind
        person = np.clip(person_mean + share * rest, 0, 255)
    result = cv2.resize(np.rint(person).astype("uint8"), alpha.shape[::-1])
    # Deep inside nothing shines through.
    inside = alpha > 0.999
    result[inside] = frame[inside]
    rows, columns = np.nonzero((alpha > 0) & ~inside)
    mixed, a = frame[rows, columns].astype("float32"), alpha[rows, columns][:, None]
    first = _sample(person_mean, rows, columns, alpha.shape)
    rest = mixed - a * first - (1 - a) * _sample(behind, rows, columns, alpha.shape)
    result[rows, columns] = np.rint(np.clip(first + a * rest, 0, 255))
    return result


def _away(mask, radius):
    """Where everything nearer than `radius` is in the mask, too."""
    import cv2

    return cv2.distanceTransform(mask.astype("uint8"), cv2.DIST_L2, 5) > radius


def _small(shape, side):
    scale = min(1.0, side / max(shape))
    return max(1, round(scale * shape[1])), max(1, round(scale * shape[0]))


def _sample(values, rows, columns, shape):
    """Values `(n, channels)` of a small array at pixels of a frame."""
    import cv2

    if not len(rows):
        return np.zeros((0, values.shape[-1]), "float32")
    height, width = values.shape[:2]
    x = ((columns + 0.5) * width / shape[1] - 0.5).astype("float32")
    y = ((rows + 0.5) * height / shape[0] - 0.5).astype("float32")
    # OpenCV's own coordinates are short: no array may be longer than 32767.
    parts = [slice(k, k + 32000) for k in range(0, len(x), 32000)]
    sampled = [
        cv2.remap(
            values, x[p, None], y[p, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ).reshape(-1, values.shape[-1])
        for p in parts
    ]
    return np.concatenate(sampled)


def _grey(frame):
    import cv2

    return cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), 1.5).astype("float32")


def _covering(picture, shape):
    """A picture scaled to cover a frame, its middle, float32."""
    import cv2

    height, width = shape
    scale = max(height / picture.shape[0], width / picture.shape[1])
    size = max(width, round(scale * picture.shape[1])), max(height, round(scale * picture.shape[0]))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(picture, size, interpolation=method)
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return scaled[top : top + height, left : left + width].astype("float32")


def check_alpha_target(path, overwrite: bool = False) -> None:
    """Refuse a target that `AlphaWriter` could not write, before the work.

    Args:
        path: A `.mov`, a `.webm`, or a name without a suffix for a folder of PNG files.
        overwrite: Replace an existing file or folder of PNG files?

    Raises:
        VPGCError: if the name is none of these, it exists and `overwrite` is false, there is no
            encoder, what a stopped writer left holds other things, or the place is read-only or
            full.

    Example:

    ```python
    check_alpha_target("me.mov")
    ```
    """
    path = Path(path)
    if path.suffix and path.suffix.lower() not in ALPHA_CODECS:
        raise VPGCError(
            f"{path} cannot hold an alpha channel: let it end in .mov (ProRes 4444) or .webm "
            "(VP9), or give a name without an ending for a folder of PNG files."
        )
    if path.exists():
        if not overwrite:
            raise VPGCError(f"{path} exists: choose another name, or --overwrite.")
        _check_replaceable(path, path)
    _check_replaceable(_partial(path), path)
    if path.suffix:
        av = video._av()
        codec = ALPHA_CODECS[path.suffix.lower()][0]
        if codec not in av.codecs_available:
            raise VPGCError(
                f"This PyAV ({av.__version__}) has no encoder for {path.suffix} with alpha, "
                f"{codec}: install the one of PyPI by pip install --force-reinstall av, or give a "
                "name without an ending for a folder of PNG files."
            )
    check_writable(path)


def _partial(path):
    """Where a target is while it is written."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def _check_replaceable(there, target):
    """Nothing but what `AlphaWriter` writes is removed for its sake."""
    if not there.exists():
        return
    if there.is_dir() == bool(target.suffix):
        kind = "a folder" if there.is_dir() else "a file"
        raise VPGCError(f"{there} is {kind}: choose another name.")
    strange = there.is_dir() and [f for f in there.iterdir() if f.suffix != ".png"]
    if strange:
        raise VPGCError(
            f"{there} holds more than PNG files ({strange[0].name}): it is not replaced."
        )


class AlphaWriter:
    """Writes frames with an alpha channel, under a temporary name until all are there.

    `.mov` is ProRes 4444 (10 bit, 16-bit alpha; for editors), `.webm` VP9 with alpha (for
    browsers), a folder holds a PNG a frame. Alpha is straight, not premultiplied.

    The temporary name is `me.partial.mov` (or `.webm`, or a folder `me.partial`). A writer that is
    stopped by an error or by the user leaves it there, to be played, and warns where; one that is
    killed leaves what reached the disk: all files of a folder, a `.mov` and a `.webm` but for their
    last seconds. Nothing goes on from there: the next writer of the same target replaces it.

    Args:
        path: Target, see `check_alpha_target`.
        frame_rate: Frames a second.
        overwrite: Replace an existing target?
        times: Seconds from the first frame at which each frame appears, where their rate varies
            (`.mov` keeps 1/90000 s, `.webm` milliseconds); default: evenly. A folder of PNG files
            has no times: its frames are one after the other, whatever is given.
        metadata: What the target says of itself, such as `Provenance.metadata`: in the container,
            or as international text (`iTXt`) in each PNG file.
        finish: Called with the path of the whole `.mov` or `.webm` before it gets its name, such as
            `Provenance.sign`; may change it. Not called for a folder.

    Raises:
        VPGCError: see `check_alpha_target`; or if a frame has another size, there are more frames
            than times, or the disk is full.

    Example:

    ```python
    with AlphaWriter("me.mov", 25) as writer, Background("alpha") as background:
        for frame in frames:
            writer.write(background(frame))  # uint8 (h, w, 4)
    ```

    References:
        - Portable Network Graphics (PNG) Specification, third edition, 11.3.3.4 (`iTXt`).
    """

    def __init__(
        self,
        path,
        frame_rate: float,
        overwrite: bool = False,
        times=None,
        metadata: dict[str, str] | None = None,
        finish: Callable[[Path], None] | None = None,
    ):
        self.path, self.frame_rate, self.times = Path(path), frame_rate, times
        self.metadata, self.finish = metadata or {}, finish
        check_alpha_target(self.path, overwrite)
        self.partial = _partial(self.path)
        self.count, self.size = 0, (0, 0)
        self._container: Any = None
        self._opened = self._kept = False

    def __enter__(self):
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 RGB with alpha `(height, width, 4)`."""
        if self.count == 0:
            self.size = frame.shape[:2]
        if frame.shape != (*self.size, 4):
            raise VPGCError(
                f"A frame of shape {frame.shape} cannot follow frames of {(*self.size, 4)} in "
                f"{self.path}."
            )
        video.check_count(self.path, self.count, self.times)
        with writing(self.path):
            if self.count == 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._open()
            if self._container is None:
                self._png(frame)
            else:
                self._container.mux(self._stream.encode(frame))
        self.count += 1

    def _open(self):
        _remove(self.partial)
        self._opened = True
        if not self.path.suffix:
            self.partial.mkdir()
            return
        suffix = self.path.suffix.lower()
        codec, pixels, options = ALPHA_CODECS[suffix]
        self._container = video.open_target(self.partial, self.metadata)
        # So that a killed writer leaves what can be played; a whole .mov is an ordinary one.
        more = self._container.container_options
        if suffix == ".mov":
            flags = [more["movflags"]] if "movflags" in more else []
            more["movflags"] = "+".join([*flags, "hybrid_fragmented"])
            more["frag_duration"] = "1000000"  # microseconds
        else:
            more["cluster_time_limit"] = "1000"  # milliseconds
            more["flush_packets"] = "1"
        self._stream = video.PictureStream(
            self._container, codec, self.size, self.frame_rate, self.times, pixels, options
        )

    def _png(self, frame):
        import cv2

        data = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGBA2BGRA))[1].tobytes()
        data = _with_texts(data, self.metadata)
        (self.partial / f"{self.count:06d}.png").write_bytes(data)

    def keep(self) -> Path | None:
        """Stop, and leave what is written so far under its temporary name, to be played.

        It has the metadata, but `finish` is not called.

        Returns:
            Its path; `None` if there is no frame yet.
        """
        self._kept = True
        if self._container is not None:
            with contextlib.suppress(Exception):
                self._container.mux(self._stream.flush())
            with contextlib.suppress(Exception):
                self._container.close()
            self._container = None
        if self.count:
            return self.partial
        if self._opened:
            _remove(self.partial)
        return None

    def __exit__(self, kind, error, trace):
        if self._kept:
            return
        if self.count == 0:
            self.keep()
            if kind is None:
                raise VPGCError(f"No frame was written to {self.path}: there is nothing to show.")
            return
        try:
            if kind is None:
                self._complete()
                return
        except BaseException:
            self._keep_and_say()
            raise
        self._keep_and_say()

    def _complete(self):
        with writing(self.path):
            if self._container is not None:
                self._container.mux(self._stream.flush())
                self._container.close()
                self._container = None
                if self.finish is not None:
                    self.finish(self.partial)
            if self.path.is_dir():
                _remove(self.path)
            os.replace(self.partial, self.path)

    def _keep_and_say(self):
        kept = self.keep()
        warnings.warn(
            f"What is rendered so far can be played in {kept}; the same call begins anew and "
            "replaces it.",
            stacklevel=3,
        )


def _with_texts(data: bytes, texts: dict[str, str]) -> bytes:
    """A PNG file with texts behind its header, as `iTXt` in plain UTF-8."""
    chunks = []
    for name, text in texts.items():
        # PNG writes its own keywords, such as Title, with a capital.
        keyword = (name[:1].upper() + name[1:]).encode("latin-1", "replace")[:79]
        body = b"iTXt" + keyword + bytes(5) + text.encode()
        chunks.append(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
    return data[:HEADER] + b"".join(chunks) + data[HEADER:]


def _remove(path):
    """A file, or a folder of PNG files."""
    if path.is_dir():
        for file in path.glob("*.png"):
            file.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
