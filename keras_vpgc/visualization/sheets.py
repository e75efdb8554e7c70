"""Pictures to look at."""

import numpy as np


def contact_sheet(rows, labels, columns: int = 8, cell: int = 160) -> np.ndarray:
    """Evenly picked frames of several clips below each other.

    Args:
        rows: List of uint8 `(n, s, s, 3)`, one a row, all of `n` frames.
        labels: A name for each row.
        columns: Number of frames shown.
        cell: Side of a frame in the sheet, in pixels.

    Returns:
        uint8 `(height, width, 3)`.
    """
    import cv2

    picked = np.linspace(0, len(rows[0]) - 1, min(columns, len(rows[0]))).round().astype(int)
    sheet = []
    for frames, label in zip(rows, labels, strict=True):
        row = [cv2.resize(frames[i], (cell, cell), interpolation=cv2.INTER_AREA) for i in picked]
        sheet.append(write(np.hstack(row), label))
    return np.vstack(sheet)


def side_by_side(frames, labels=None) -> np.ndarray:
    """Frames beside each other, uint8 `(s, s, 3)` each -> uint8 `(s, n * s, 3)`."""
    if labels is None:
        return np.hstack(frames)
    return np.hstack([write(f, label) for f, label in zip(frames, labels, strict=True)])


def write(image, text: str, line: int = 0) -> np.ndarray:
    """A copy of an image with a line of text at its left edge, in a size that suits its height.

    Lines are counted from 0 at the top, or from -1 at the bottom.
    """
    import cv2

    image = np.ascontiguousarray(image).copy()
    scale = max(0.35, image.shape[0] / 640)
    height = int(14 * scale / 0.4)
    # The letters stand on the place.
    below = image.shape[0] + (line + 1) * int(1.5 * height) - height // 2
    place = (4, below if line < 0 else height + line * int(1.5 * height))
    # An outline of shifted copies: thicker strokes would be wider letters.
    shifts = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y] + [(0, 0)]
    for x, y in shifts:
        colour = (0, 0, 0) if x or y else (255, 255, 255)
        shifted = (place[0] + x, place[1] + y)
        cv2.putText(image, text, shifted, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return image


def draw_landmarks(image, landmarks) -> np.ndarray:
    """A copy of a frame `(s, s, 3)` with the contours of 68 landmarks in [0, 1]."""
    import cv2

    from keras_vpgc.data.landmark_sets import CONTOURS_68

    image = np.ascontiguousarray(image).copy()
    points = np.rint(np.asarray(landmarks) * image.shape[0]).astype("int32")
    for indices, closed in CONTOURS_68:
        cv2.polylines(image, [points[list(indices)]], closed, (60, 255, 60), 1, cv2.LINE_AA)
    return image


def png(image) -> bytes:
    """An RGB picture, uint8 `(h, w, 3)`, as the bytes of a PNG file.

    `cv2.imwrite` says nothing of a full disk: write these instead.
    """
    import cv2

    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
