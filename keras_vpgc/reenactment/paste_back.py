"""The puppet's square pictures put back into full frames.

Everything that is smoothed over time is planned from the whole track, before the first frame is
pasted: `Placement` (where), `ColourMatch` (which colours) and `RimMatch` (how lines that cross the
rim are joined) hold what each frame needs. A frame's result thus depends on its number, picture and
frame alone, wherever a job is begun again.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from keras_vpgc.data.crop import Crop
from keras_vpgc.data.portrait import fill
from keras_vpgc.errors import VPGCError, import_cv2

REGIONS = ("crop", "face")
BLENDS = ("feather", "two-band", "none")
# A crop's rim lies on what both show; a face's features are not in the same places.
BLEND = {"crop": "feather", "face": "two-band"}
# Width of the soft rim, in sides of the crop or heights of the face.
FEATHER = {"crop": 0.12, "face": 0.22}
# Share of the feather in which details pass over; tones take all of it.
DETAIL = 0.5
# Standard deviations in time of a place that follows a face, and of what is matched, in seconds.
PLACE_WINDOW, MATCH_WINDOW = 0.12, 1.0
# Deviations beyond which a compared frame counts for nothing: less than 1e-10 of the nearest one.
REACH = 7.0
# Seconds in which a face fades out before a gap of the track.
FADE = 0.2
# A step from frame to frame that no head makes: a part of the face's size, a ratio of sizes.
JUMP, JUMP_SCALE = 0.25, 1.25
# How much the 68 landmarks count in placing a face: the jaw is the person's own, lips move.
WEIGHTS = np.concatenate(
    [np.full(17, 0.25), np.full(10, 0.5), np.full(9, 1.0), np.full(12, 1.0), np.full(20, 0.5)]
)
# How far above the brows a face region reaches, in distances of brows and chin.
FOREHEAD = 0.12
# Side of the thumbnails in which picture and frame are compared.
SMALL = 128
# Spread in Lab below which a region counts as of one tone, and the gains that are believed.
TONE, GAINS = 3.0, (0.5, 2.0)
# Lines at the rim: side of the grid on which their shifts are kept; the deviation of the blur that
# spreads them, the longest shift and the shortest one that counts in pixels of the thumbnails.
GRID, SPREAD, LONGEST, SHORTEST = 32, 5.0, 12.0, 0.25
# Deviation of the windows of optical flow in pixels; mean squared slopes in grey levels that steady
# it, and that let it count half.
WINDOW, RIDGE, UNSURE = 3.0, 2.0, 4.0


@dataclass(frozen=True)
class Placement:
    """Where the puppet's picture lies in each frame.

    Attributes:
        matrices: Float64 `(n, 2, 3)`: `matrices[k] @ (u, v, 1)` is the place in the frame of a
            point of the picture, in pixels, where pixel i covers i to i + 1; u and v are in [0, 1].
        opacity: Float32 `(n,)` in [0, 1]; 0 leaves the frame as it is.
        crop: The fixed crop, in whole pixels, if it is one.
    """

    matrices: np.ndarray
    opacity: np.ndarray
    crop: Crop | None = None

    def __len__(self):
        """Number of frames."""
        return len(self.matrices)

    @property
    def scale(self) -> float:
        """Side of the picture in pixels of the frame: the median."""
        return float(np.median(np.hypot(self.matrices[:, 0, 0], self.matrices[:, 1, 0])))


def place_crop(crop: Crop, count: int) -> Placement:
    """The place from which `keras_vpgc.data.crop.apply` takes the crop, in all frames.

    Args:
        crop: A `Crop`; it may reach beyond the picture, whose repeated edge is then not pasted.
        count: Number of frames.

    Returns:
        A `Placement`.

    Example:

    ```python
    place_crop(Crop(**puppet.metadata["crop"]), len(landmarks))
    ```
    """
    # Crops are cut at whole pixels.
    x, y, side = (int(round(v)) for v in (crop.x, crop.y, crop.size))
    matrix = np.array([[side, 0.0, x], [0.0, side, y]])
    whole = Crop(float(x), float(y), float(side))
    return Placement(np.repeat(matrix[None], count, axis=0), np.ones(count, "float32"), whole)


def place_face(driven, seen, valid, times) -> Placement:
    """The place in which the driven face covers the face that is seen.

    In each frame it is the similarity transform (scale, turn and shift) that brings the driven
    landmarks nearest to the seen ones, by weighted least squares. The transforms are then smoothed
    by local quadratic regression with Gaussian weights (0.12 s), which takes the tremble out of a
    track, follows the head without lag and keeps its turning points; a cut ends the window. Where
    the face is not seen, and 0.2 s around, the picture fades out.

    Args:
        driven: Float `(n, 68, 2)`, the landmarks that drive the puppet, in [0, 1] of its picture.
        seen: Float `(n, 68, 2)`, those in the frames, in pixels; any value where not valid.
        valid: Bool `(n,)`.
        times: Float `(n,)`, seconds.

    Returns:
        A `Placement`.

    Raises:
        VPGCError: if no frame is valid.

    Example:

    ```python
    place = place_face(landmarks, landmark_sets.landmarks(track.points), track.valid, times)
    ```

    References:
        - Umeyama, "Least-squares estimation of transformation parameters between two point
          patterns", IEEE PAMI 1991.
        - Cleveland, "Robust locally weighted regression and smoothing scatterplots", JASA 1979.
    """
    valid, times = np.asarray(valid, bool), np.asarray(times, "float64")
    if not valid.any():
        raise VPGCError("There is no face to put the puppet's on: give a clip that shows one.")
    driven = np.asarray(driven, "float64")[:, :68]
    known = np.flatnonzero(valid)
    # As complex numbers a similarity transform is a product and a sum.
    p = driven[..., 0] + 1j * driven[..., 1]
    q = np.asarray(seen, "float64")[:, :68]
    q = q[..., 0] + 1j * q[..., 1]
    weights = WEIGHTS / WEIGHTS.sum()
    p_mean, q_mean = p @ weights, np.where(valid, q @ weights, 0)
    p_local, q_local = p - p_mean[:, None], q - q_mean[:, None]
    turn = np.ones(len(p), complex)
    turn[known] = (np.conj(p_local[known]) * q_local[known]) @ weights
    turn[known] /= (np.abs(p_local[known]) ** 2) @ weights
    size = np.abs(turn) * np.sqrt((np.abs(p_local) ** 2) @ weights)
    values = np.stack(
        [np.log(np.abs(turn)), np.unwrap(np.angle(turn)), q_mean.real, q_mean.imag], axis=1
    )
    values[~valid] = np.nan
    # The face's middle in the picture moves too; both middles are smoothed alike.
    middle = np.where(valid, p_mean, np.nan)
    values = np.column_stack([values, middle.real, middle.imag])
    result = np.full_like(values, np.nan)
    for part in _parts(values, size, known):
        result[part] = _regress(values[part], times[part], PLACE_WINDOW)
    # Frames without a face are not shown; their place is that of the nearest frame.
    result = fill(result, valid)
    turn = np.exp(result[:, 0] + 1j * result[:, 1])
    shift = result[:, 2] + 1j * result[:, 3] - turn * (result[:, 4] + 1j * result[:, 5])
    matrices = np.stack(
        [
            np.stack([turn.real, -turn.imag, shift.real], axis=1),
            np.stack([turn.imag, turn.real, shift.imag], axis=1),
        ],
        axis=1,
    )
    return Placement(matrices, _opacity(valid, times))


def _parts(values, size, known):
    """Runs of frames with a face that no cut and no gap divides."""
    step = np.diff(known) > 1
    a, b = known[:-1], known[1:]
    moved = np.hypot(*(values[b, 2:4] - values[a, 2:4]).T) > JUMP * size[a] * 2
    grown = np.abs(values[b, 0] - values[a, 0]) > np.log(JUMP_SCALE)
    return np.split(known, np.flatnonzero(step | moved | grown) + 1)


def _regress(values, times, window):
    """Local quadratic regression of `(n, d)` at each of its times."""
    count = len(times)
    if count < 4:
        return values
    half = int(np.ceil(3 * window / max(float(np.median(np.diff(times))), 1e-3)))
    places = np.arange(count)[:, None] + np.arange(-half, half + 1)[None]
    inside = (places >= 0) & (places < count)
    places = np.clip(places, 0, count - 1)
    offset = (times[places] - times[:, None]) / window
    weight = np.exp(-0.5 * offset**2) * inside
    terms = offset[..., None] ** np.arange(3)
    normal = np.einsum("nw,nwi,nwj->nij", weight, terms, terms)
    # Where too few frames are in the window, a little ridge leaves the mean.
    normal += 1e-9 * np.diag([0.0, 1.0, 1.0])
    right = np.einsum("nw,nwi,nwd->nid", weight, terms, values[places])
    return np.linalg.solve(normal, right)[:, 0]


def _opacity(valid, times):
    """1 where the face is seen, down to 0 in the 0.2 s before it is not."""
    opacity = valid.astype("float32")
    lost = np.flatnonzero(~valid)
    if len(lost):
        after = np.searchsorted(lost, np.arange(len(valid)))
        near = np.minimum(
            np.abs(times - times[lost[np.maximum(after - 1, 0)]]),
            np.abs(times - times[lost[np.minimum(after, len(lost) - 1)]]),
        )
        opacity *= _smoothstep(near / FADE)
    return opacity


def _smoothstep(x):
    x = np.clip(x, 0, 1)
    return (x * x * (3 - 2 * x)).astype("float32")


@dataclass(frozen=True)
class ColourMatch:
    """How a picture's colours are changed in each frame: `gain * Lab + shift`, by channel.

    Attributes:
        gain: Float32 `(n, 3)`.
        shift: Float32 `(n, 3)`; L in [0, 100].
    """

    gain: np.ndarray
    shift: np.ndarray

    def __call__(self, number: int, image) -> np.ndarray:
        """The picture uint8 RGB `(s, s, 3)` in the colours of frame `number`."""
        cv2 = import_cv2()
        gain, shift = self.gain[number], self.shift[number]
        if np.allclose(gain, 1, atol=1e-4) and np.allclose(shift, 0, atol=1e-3):
            return image
        lab = cv2.cvtColor(image.astype("float32") / 255, cv2.COLOR_RGB2LAB)
        rgb = cv2.cvtColor(lab * gain + shift, cv2.COLOR_LAB2RGB)
        return np.clip(np.rint(255 * rgb), 0, 255).astype("uint8")


@dataclass(frozen=True)
class RimMatch:
    """How a picture is bent near its rim so that lines run on into the frame.

    Attributes:
        shift: Float32 `(m, 32, 32, 3)`: for the compared frames, shifts over the picture in its
            sides, times their weight, and the weight.
        index: Int32 `(n, k)`, those of them that count in each frame.
        weight: Float32 `(n, k)`, how much.
    """

    shift: np.ndarray
    index: np.ndarray
    weight: np.ndarray

    def __call__(self, number: int, size: int) -> np.ndarray:
        """Shifts of frame `number` in pixels, float32 `(size, size, 2)`."""
        cv2 = import_cv2()
        pooled = np.tensordot(self.weight[number], self.shift[self.index[number]], 1)
        shift = pooled[..., :2] * SMALL / np.maximum(pooled[..., 2:], 1e-6)
        length = np.maximum(np.linalg.norm(shift, axis=-1, keepdims=True), 1e-9)
        # Steps below a quarter of a pixel are the estimate's own noise.
        shift *= np.clip(length / SHORTEST - 1, 0, 1) * np.minimum(1, LONGEST / length)
        shift = (shift * size / SMALL).astype("float32")
        return cv2.resize(shift, (size, size), interpolation=cv2.INTER_LINEAR)


def key_frames(count: int, times, interval: float = 1.0) -> np.ndarray:
    """The frames in which picture and frame are compared: some, evenly over the clip.

    Args:
        count: Number of frames.
        times: Float `(n,)`, seconds.
        interval: Seconds between two of them.

    Returns:
        Int `(m,)`, rising; at least 5, as far as there are frames.
    """
    length = float(times[-1] - times[0]) if count > 1 else 0.0
    number = int(np.clip(round(length / interval) + 1, min(5, count), count))
    return np.unique(np.round((np.arange(number) + 0.5) / number * count - 0.5).astype(int))


def match(pairs: Iterable, numbers, times) -> tuple[ColourMatch, RimMatch]:
    """Plan colours and lines that pass from the puppet's picture into the frame.

    Both are found on thumbnails of some frames and pooled over a second on either side of a frame
    (Gaussian weights), so that they do not flicker.

    Colours: in Lab, each channel of the picture gets the mean and the spread that the frame has in
    the same region (Reinhard's transfer). Pixels whose difference is far from the others' (more
    than three deviations from the median: a hand before the face, a head in another pose) take no
    part. A region of one tone is shifted only.

    Lines: dense optical flow from the frame to the picture (Lucas and Kanade's, coarse to fine),
    where there is structure and the flow explains the difference. `PasteBack` bends the picture by
    it near the rim.

    Args:
        pairs: For each of `numbers` the picture, the frame's part under it, and where they are to
            be compared: float `(128, 128, 3)` RGB in [0, 255] twice and `(128, 128)` in [0, 1]; see
            `PasteBack.compared`.
        numbers: Int `(m,)`, the frames that these come from, see `key_frames`.
        times: Float `(n,)`, seconds of all frames, rising.

    Returns:
        A `ColourMatch` and a `RimMatch` of n frames. They grow with the length of the clip, not
        with its square.

    Example:

    ```python
    paste.colour, paste.rim = match((paste.compared(k, *pair(k)) for k in keys), keys, times)
    ```

    References:
        - Reinhard et al., "Color transfer between images", IEEE CG&A 2001.
        - Lucas and Kanade, "An iterative image registration technique with an application to stereo
          vision", IJCAI 1981.
    """
    times = np.asarray(times, "float64")
    moments, shifts = [], []
    for pair in pairs:
        moments.append(_moments(*pair))
        shifts.append(_shifts(*pair))
    keys = times[np.asarray(numbers, int)]
    index, weight = _weights(times, keys)
    weight /= weight.sum(axis=1, keepdims=True)
    rim = RimMatch(np.array(shifts, "float32"), index, weight.astype("float32"))
    values = np.array(moments, "float64")
    usable = values[:, 0] > 0
    if not usable.any():
        same = np.ones((len(times), 3), "float32")
        return ColourMatch(same, np.zeros_like(same)), rim
    values = values[usable]
    index, weight = _weights(times, keys[usable])
    weight *= values[index, 0]
    weight /= weight.sum(axis=1, keepdims=True)
    pooled = np.zeros((len(times), values.shape[1] - 1))
    for column in range(index.shape[1]):
        pooled += weight[:, column, None] * values[index[:, column], 1:]
    mean_x, mean_y, square_x, square_y = np.split(pooled, 4, axis=1)
    spread_x, spread_y = square_x - mean_x**2, square_y - mean_y**2
    gain = np.sqrt((np.maximum(spread_y, 0) + TONE**2) / (np.maximum(spread_x, 0) + TONE**2))
    gain = np.clip(gain, *GAINS)
    return ColourMatch(gain.astype("float32"), (mean_y - gain * mean_x).astype("float32")), rim


def _weights(times, keys):
    """The keys that count at each time, int32 `(n, k)`, and their Gaussian weights, float64.

    Relative to the nearest key, so that far from all keys the nearest one is taken.
    """
    place = np.searchsorted(keys, times)
    last = len(keys) - 1
    beside = keys[np.clip([place - 1, place], 0, last)]
    nearest = np.abs(times - beside).min(axis=0)
    # Nothing lies nearer than the nearest one: those that count stand side by side.
    reach = np.sqrt(nearest**2 + (REACH * MATCH_WINDOW) ** 2)
    first = np.searchsorted(keys, times - reach, "left")
    stop = np.searchsorted(keys, times + reach, "right")
    index = first[:, None] + np.arange((stop - first).max())
    inside = index < stop[:, None]
    index = np.minimum(index, last)
    distance = times[:, None] - keys[index]
    weight = np.exp((nearest[:, None] ** 2 - distance**2) / (2 * MATCH_WINDOW**2))
    return index.astype("int32"), np.where(inside, weight, 0.0)


def _shifts(picture, frame, region):
    """Shifts from the frame's lines to the picture's and how sure they are, `(32, 32, 3)`."""
    cv2 = import_cv2()
    # Along the axis on which the frame's colours differ most: skin, hair and walls can be equally
    # bright.
    colours = frame[region > 0.5].reshape(-1, 3)
    if not len(colours):
        return np.zeros((GRID, GRID, 3), "float32")
    middle = colours.mean(axis=0)
    axis = np.linalg.eigh(np.cov((colours - middle).T))[1][:, -1]
    a, b, known = (
        [cv2.resize(v, (SMALL >> k,) * 2, interpolation=cv2.INTER_AREA) for k in range(4)]
        for v in (
            *(
                cv2.GaussianBlur(((v - middle) @ axis).astype("float32"), (0, 0), 1.0)
                for v in (picture, frame)
            ),
            np.asarray(region, "float32"),
        )
    )
    shift = np.zeros((SMALL >> 3, SMALL >> 3, 2), "float32")
    for level in (3, 2, 1, 0):
        side = SMALL >> level
        if level < 3:
            shift = 2 * cv2.resize(shift, (side, side), interpolation=cv2.INTER_LINEAR)
        for _ in range(3):
            step, slope = _step(a[level], b[level], known[level], shift)
            shift = shift + step
    # Only what explains the difference.
    before, after = (
        cv2.GaussianBlur((b[0] - _moved(a[0], s)) ** 2 * known[0], (0, 0), SPREAD)
        for s in (0 * shift, shift)
    )
    sure = np.clip(1 - after / (before + 1), 0, 1) * slope / (slope + UNSURE)
    values = np.dstack([shift * sure[..., None] / SMALL, sure])
    values = cv2.GaussianBlur(values.astype("float32"), (0, 0), SPREAD)
    return cv2.resize(values, (GRID, GRID), interpolation=cv2.INTER_AREA)


def _moved(image, shift):
    cv2 = import_cv2()
    rows, columns = np.mgrid[: len(image), : len(image)].astype("float32")
    maps = columns + shift[..., 0], rows + shift[..., 1]
    return cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _step(picture, frame, known, shift):
    """One step of Lucas and Kanade from the frame to the picture, and the mean squared slope.

    A ridge on the normal equations moves a line, along which nothing can be told, across itself.
    """
    cv2 = import_cv2()
    moved = _moved(picture, shift)
    middle, difference = (moved + frame) / 2, frame - moved
    x, y = (cv2.Sobel(middle, cv2.CV_32F, *k, scale=1 / 8) for k in ((1, 0), (0, 1)))
    products = np.dstack([x * x, x * y, y * y, x * difference, y * difference])
    xx, xy, yy, xd, yd = np.moveaxis(
        cv2.GaussianBlur(products * known[..., None], (0, 0), WINDOW), -1, 0
    )
    determinant = (xx + RIDGE) * (yy + RIDGE) - xy * xy
    step = np.dstack([(yy + RIDGE) * xd - xy * yd, (xx + RIDGE) * yd - xy * xd])
    step /= determinant[..., None]
    return np.clip(step, -1.5, 1.5).astype("float32"), xx + yy


def _moments(picture, frame, region):
    """Weight, means and mean squares of the pixels that belong together."""
    cv2 = import_cv2()
    x, y = (
        cv2.cvtColor(np.clip(v, 0, 255).astype("float32") / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
        for v in (picture, frame)
    )
    region = np.asarray(region, "float64").reshape(-1)
    inside = region > 0.5
    if inside.sum() < 16:
        return np.zeros(13)
    difference = y - x
    middle = np.median(difference[inside], axis=0)
    spread = 1.4826 * np.median(np.abs(difference[inside] - middle), axis=0)
    kept = inside & (np.abs(difference - middle) < 3 * spread + 3).all(axis=1)
    weight = region * kept
    total = weight.sum()
    if total < 16:
        return np.zeros(13)
    values = np.concatenate([x, y, x**2, y**2], axis=1)
    return np.concatenate([[total], weight @ values / total])


class PasteBack:
    """Puts the puppet's pictures into frames.

    Args:
        placement: Where, see `place_crop` and `place_face`.
        image_size: Side of the puppet's pictures in pixels.
        frame_size: Width and height of the frames in pixels.
        region: `"crop"`: all of the picture, with rounded corners and a soft rim, which is left out
            where the picture reaches the frame's edge; `"face"`: what both the driven and the seen
            face cover, from above the brows to the chin.
        feather: Width of the soft rim, in sides of the picture or heights of the face; default:
            0.12 or 0.22.
        blend: `"feather"`: picture and frame pass over in all of the feather; `"two-band"`: tones
            do, details in half of it, so that less shows of the face that is covered; `"none"`: a
            hard edge. Default: feather for a crop, two-band for a face.
        colour: A `ColourMatch`, or `None` to leave colours as they are.
        rim: A `RimMatch`, or `None` to bend nothing; a crop that stays where it is takes it.

    Raises:
        VPGCError: for an unknown region or blend, or a picture that lies outside of all frames.

    Example:

    ```python
    paste = PasteBack(place_crop(crop, len(images)), 512, (1920, 1080))
    full = paste(0, images[0], frame)  # uint8 (1080, 1920, 3)
    ```

    References:
        Burt and Adelson, "A multiresolution spline with application to image mosaics", ACM TOG
        1983; in two bands as in Brown and Lowe, "Automatic panoramic image stitching using
        invariant features", IJCV 2007.
    """

    def __init__(
        self,
        placement: Placement,
        image_size: int,
        frame_size: tuple[int, int],
        *,
        region: str = "crop",
        feather: float | None = None,
        blend: str | None = None,
        colour: ColourMatch | None = None,
        rim: RimMatch | None = None,
    ):
        blend = blend or BLEND.get(region, "feather")
        for value, known, name in ((region, REGIONS, "region"), (blend, BLENDS, "blend")):
            if value not in known:
                raise VPGCError(f"There is no {name} {value!r}: choose one of {', '.join(known)}.")
        if feather is not None and not 0 < feather <= 0.5:
            raise VPGCError(f"A feather of {feather:g} is impossible: give one in (0, 0.5].")
        self.placement, self.image_size, self.frame_size = placement, image_size, frame_size
        self.region, self.blend, self.colour, self.rim = region, blend, colour, rim
        self.feather = FEATHER[region] if feather is None else feather
        # The side from which a picture that is made smaller is warped, one for all frames.
        self._reduced = min(image_size, max(8, round(placement.scale)))
        self._masks = None
        if region == "crop" and placement.crop is not None:
            self._fixed()

    def __call__(self, number: int, image, frame, driven=None, seen=None) -> np.ndarray:
        """Paste one picture.

        Args:
            number: The frame's number in the placement.
            image: uint8 RGB `(s, s, 3)`, the puppet's.
            frame: uint8 RGB `(height, width, 3)`; it is left as it is.
            driven: Float `(68, 2)`, landmarks of the picture in [0, 1]; for the region `"face"`.
            seen: Float `(68, 2)`, landmarks of the frame's own face in pixels, if it has one.

        Returns:
            uint8 RGB `(height, width, 3)`, a new array.

        Raises:
            VPGCError: for a picture or frame of another size.
        """
        self._check(image, frame)
        if self.region == "face" and driven is None:
            raise VPGCError("The region 'face' needs the landmarks that drive the puppet.")
        result = frame.copy()
        opacity = float(self.placement.opacity[number])
        if opacity == 0:
            return result
        if self.colour is not None:
            image = self.colour(number, image)
        if self._masks is not None:
            box, detail, tone = self._masks
            picture = self._resized(self._bent(number, image), box)
        else:
            box, detail, tone = self._moving(number, driven, seen)
            if box is None:
                return result
            picture = self._warped(number, image, box)
        x, y, right, bottom = box
        part = result[y:bottom, x:right]
        if opacity < 1:
            detail, tone = opacity * detail, opacity * tone
        part[:] = self._blended(picture, part, detail, tone)
        return result

    def compared(self, number: int, image, frame, driven=None, seen=None):
        """What `match` compares of a frame.

        Args:
            number, image, frame, driven, seen: See `__call__`.

        Returns:
            The picture and the frame's part under it, float32 `(128, 128, 3)`, and the
            weights `(128, 128)`: 1 in the region, 0 outside of it and of the frame.
        """
        cv2 = import_cv2()
        self._check(image, frame)
        size = 2 * SMALL
        matrix = _pixels(self.placement.matrices[number], size)
        inverse = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        under = cv2.warpAffine(frame, matrix, (size, size), flags=inverse)
        inside = np.ones(frame.shape[:2], "float32")
        weight = cv2.warpAffine(inside, matrix, (size, size), flags=inverse)
        if self.region == "face":
            weight = np.minimum(weight, self._face(number, driven, seen, size, 0.0))
        small, under = (
            cv2.resize(v.astype("float32"), (SMALL, SMALL), interpolation=cv2.INTER_AREA)
            for v in (image, under)
        )
        weight = cv2.resize(weight, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
        return small, under, weight * (weight > 0.99)

    def _check(self, image, frame):
        size = (self.image_size, self.image_size, 3)
        if image.shape != size or frame.shape != (*self.frame_size[::-1], 3):
            raise VPGCError(
                f"Pictures of {self.image_size}x{self.image_size} pixels are put into frames of "
                f"{self.frame_size[0]}x{self.frame_size[1]}; received {image.shape[1]}x"
                f"{image.shape[0]} and {frame.shape[1]}x{frame.shape[0]}."
            )

    def _fixed(self):
        """Masks of a crop that stays where it is."""
        crop, (width, height) = self.placement.crop, self.frame_size
        x, y, side = int(crop.x), int(crop.y), int(crop.size)
        box = max(0, x), max(0, y), min(width, x + side), min(height, y + side)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise VPGCError(
                f"The crop {x},{y},{side} lies outside of frames of {width}x{height} pixels: give "
                "frames like those of the puppet's own video."
            )
        # A side at the frame's edge has nothing beside it to pass into.
        rims = x > 0, y > 0, x + side < width, y + side < height
        columns = np.arange(box[0], box[2]) + 0.5 - x
        rows = np.arange(box[1], box[3]) + 0.5 - y
        distance = _inside(columns[None], rows[:, None], side, rims, 2 * self.feather * side)
        self._masks = box, *self._ramps(distance / (self.feather * side))
        places = (np.arange(self.image_size) + 0.5) * side / self.image_size
        distance = _inside(places[None], places[:, None], side, rims, 2 * self.feather * side)
        # Lines are bent in full at the rim, and not at all two feathers from it.
        self._bend = 1 - _smoothstep(distance / (self.feather * side) / 2 - 0.1)[..., None]

    def _ramps(self, depth):
        """Masks of details and tones, from the depth inside the region in feathers."""
        if self.blend == "none":
            detail = tone = (depth > 0).astype("float32")
        elif self.blend == "feather":
            detail = tone = _smoothstep(depth)
        else:
            detail, tone = _smoothstep(depth / DETAIL), _smoothstep(depth)
        return detail[..., None], tone[..., None]

    def _bent(self, number, image):
        if self.rim is None:
            return image
        cv2 = import_cv2()
        shift = self.rim(number, self.image_size) * self._bend
        if not shift.any():
            return image
        rows, columns = np.mgrid[: self.image_size, : self.image_size].astype("float32")
        maps = columns + shift[..., 0], rows + shift[..., 1]
        return cv2.remap(image, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    def _resized(self, image, box):
        cv2 = import_cv2()
        crop = self.placement.crop
        x, y, side = int(crop.x), int(crop.y), int(crop.size)
        if side != self.image_size:
            method = cv2.INTER_AREA if side < self.image_size else cv2.INTER_LANCZOS4
            image = cv2.resize(image, (side, side), interpolation=method)
        return image[box[1] - y : box[3] - y, box[0] - x : box[2] - x]

    def _warped(self, number, image, box):
        cv2 = import_cv2()
        if self._reduced < self.image_size:
            image = cv2.resize(image, (self._reduced,) * 2, interpolation=cv2.INTER_AREA)
        matrix = _pixels(self.placement.matrices[number], len(image))
        matrix[:, 2] -= box[:2]
        size = box[2] - box[0], box[3] - box[1]
        return cv2.warpAffine(
            image, matrix, size, flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE
        )

    def _moving(self, number, driven, seen):
        """Box and masks of a region that moves."""
        cv2 = import_cv2()
        matrix, (width, height) = self.placement.matrices[number], self.frame_size
        corners = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]) @ matrix.T
        if self.region == "face":
            corners = _face_points(driven) @ matrix[:, :2].T + matrix[:, 2]
        low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
        low = np.clip(low.astype(int) - 2, 0, (width, height))
        high = np.clip(high.astype(int) + 2, 0, (width, height))
        if (low >= high).any():
            return None, None, None
        box = int(low[0]), int(low[1]), int(high[0]), int(high[1])
        # Soft masks need few pixels.
        size = 256
        detail, tone = self._soft(number, driven, seen, size)
        to_box = _pixels(matrix, size)
        to_box[:, 2] -= low
        masks = [
            cv2.warpAffine(mask, to_box, tuple((high - low).tolist()), flags=cv2.INTER_LINEAR)
            for mask in (detail, tone)
        ]
        return box, masks[0][..., None], masks[1][..., None]

    def _soft(self, number, driven, seen, size):
        """Masks of details and tones over the picture, `size` pixels a side."""
        cv2 = import_cv2()
        if self.region == "crop":
            place = np.arange(size) + 0.5
            distance = _inside(
                place[None], place[:, None], size, (True,) * 4, 2 * self.feather * size
            )
            detail, tone = self._ramps(distance / (self.feather * size))
            return detail[..., 0], tone[..., 0]
        if self.blend == "none":
            mask = self._face(number, driven, seen, size, 0.0)
            return mask, mask
        height = float(np.ptp(_face_points(driven)[:, 1]))
        masks = []
        for share in (DETAIL if self.blend == "two-band" else 1.0, 1.0):
            width = share * self.feather * height
            # Blurred edges reach two deviations to either side, here from the rim inwards.
            mask = self._face(number, driven, seen, size, width / 2)
            sigma = max(0.6, width / 4 * size)
            masks.append(cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT))
        return masks

    def _face(self, number, driven, seen, size, inset):
        """What both faces cover of the picture, drawn `size` pixels a side; float32 in [0, 1].

        `inset` is taken off all around, in sides of the picture.
        """
        cv2 = import_cv2()
        shapes = [_face_points(driven)]
        if seen is not None and np.isfinite(seen).all():
            matrix = self.placement.matrices[number]
            shapes.append(_face_points((seen - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T))
        # What the picture does not show cannot be pasted.
        shapes.append(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
        mask = np.ones((size, size), "float32")
        for points in shapes:
            hull = cv2.convexHull(points.astype("float32"))[:, 0].astype("float64")
            middle = hull.mean(axis=0)
            arm = hull - middle
            radius = np.linalg.norm(arm, axis=1, keepdims=True)
            hull = middle + arm * np.maximum(radius - inset, 0) / np.maximum(radius, 1e-9)
            drawn = np.zeros((size, size), "uint8")
            corners = np.rint((hull * size - 0.5) * 256).astype("int32")
            cv2.fillPoly(drawn, [corners], 255, cv2.LINE_AA, 8)
            mask = np.minimum(mask, drawn.astype("float32") / 255)
        return mask

    def _blended(self, picture, frame, detail, tone):
        """`frame + detail * (d - low(d)) + tone * low(d)` for the difference d of both."""
        cv2 = import_cv2()
        difference = cv2.subtract(picture, frame, dtype=cv2.CV_32F)
        mixed = difference * detail
        if self.blend == "two-band":
            mixed += self._low(difference, detail) * (tone - detail)
        mixed += frame
        return cv2.convertScaleAbs(np.maximum(mixed, 0, out=mixed))

    def _low(self, difference, weight):
        """The tones of a difference: what the region holds of it, blurred by half a feather."""
        cv2 = import_cv2()
        height, width = difference.shape[:2]
        sigma = self.feather * self.placement.scale / 2
        if self.region == "face":
            # A face takes about this part of a picture's side.
            sigma *= 0.55
        step = max(1, int(sigma / 3))
        small = max(1, width // step), max(1, height // step)
        inside = (weight[..., 0] > 0.05).astype("float32")
        values = cv2.resize(difference * inside[..., None], small, interpolation=cv2.INTER_AREA)
        share = cv2.resize(inside, small, interpolation=cv2.INTER_AREA)
        sigma = max(0.5, sigma / step)
        values = cv2.GaussianBlur(values, (0, 0), sigma)
        share = cv2.GaussianBlur(share, (0, 0), sigma)
        values /= np.maximum(share, 1e-3)[..., None]
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)


def _pixels(matrix, size):
    """From numbers of a picture's pixels to those of a frame's; centres are at halves."""
    scaled = np.array(matrix, "float64")
    scaled[:, :2] /= size
    scaled[:, 2] += scaled[:, :2].sum(axis=1) / 2 - 0.5
    return scaled


def _inside(x, y, side, rims, radius):
    """Distance `(h, w)` from the rim of a square with rounded corners, inwards.

    Args:
        x, y: Places inside of it, `(1, w)` and `(h, 1)`.
        side: Its side.
        rims: Which of the sides left, top, right and bottom are a rim; the others are not near.
        radius: That of the corners.
    """
    far = 4 * side
    horizontal = np.minimum(x if rims[0] else far, side - x if rims[2] else far) + 0 * x
    vertical = np.minimum(y if rims[1] else far, side - y if rims[3] else far) + 0 * y
    corner = np.hypot(np.maximum(radius - horizontal, 0), np.maximum(radius - vertical, 0))
    straight = np.minimum(horizontal, vertical)
    return np.where(straight < radius, radius - corner, straight)


def _face_points(landmarks):
    """Outline of a face: jaw, brows and a little above them."""
    points = np.asarray(landmarks, "float64")[:68, :2]
    brows = points[17:27]
    up = brows.mean(axis=0) - points[6:11].mean(axis=0)
    return np.concatenate([points[:17], brows, brows + FOREHEAD * up])
