"""A portrait video that anybody may use: a still photograph, animated by landmarks.

The photograph is `skimage.data.astronaut()` (NASA, public domain). Its 68 landmarks are moved like
those of a talking head and the picture follows by piecewise-affine warps, so the true landmarks of
every frame are known. Good for tests and pictures; how good a puppet looks is for real footage to
say.

    python examples/animated_portrait.py astronaut.mp4 --seconds 30
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import Delaunay
from skimage import data

from keras_vpgc.data.video import VideoWriter

# The square of the photograph that is used: left, top, side in pixels.
CROP = (110, 0, 230)

# iBUG-68 landmarks in that square, in [0, 1], found by MediaPipe's Face Landmarker.
# fmt: off
LANDMARKS = np.array([
    [0.3082, 0.4404], [0.3081, 0.4777], [0.3083, 0.5170], [0.3101, 0.5602], [0.3157, 0.6079],
    [0.3275, 0.6479], [0.3437, 0.6785], [0.3680, 0.7073], [0.4845, 0.7714], [0.6074, 0.7198],
    [0.6353, 0.6932], [0.6562, 0.6640], [0.6740, 0.6255], [0.6858, 0.5795], [0.6915, 0.5368],
    [0.6946, 0.4976], [0.6965, 0.4605],
    [0.3387, 0.3945], [0.3547, 0.3818], [0.3805, 0.3767], [0.4156, 0.3816], [0.4571, 0.3905],
    [0.5479, 0.3939], [0.5909, 0.3899], [0.6269, 0.3894], [0.6531, 0.3978], [0.6684, 0.4124],
    [0.4998, 0.4410], [0.4977, 0.4858], [0.4955, 0.5270], [0.4942, 0.5520],
    [0.4531, 0.5645], [0.4684, 0.5754], [0.4933, 0.5802], [0.5192, 0.5775], [0.5357, 0.5681],
    [0.3708, 0.4373], [0.3877, 0.4269], [0.4179, 0.4277], [0.4504, 0.4505], [0.4243, 0.4524],
    [0.3943, 0.4510], [0.5496, 0.4562], [0.5839, 0.4360], [0.6150, 0.4390], [0.6318, 0.4513],
    [0.6063, 0.4626], [0.5754, 0.4609],
    [0.4012, 0.6051], [0.4422, 0.6048], [0.4665, 0.6061], [0.4931, 0.6114], [0.5202, 0.6080],
    [0.5443, 0.6083], [0.5847, 0.6111], [0.5411, 0.6611], [0.5176, 0.6702], [0.4902, 0.6726],
    [0.4630, 0.6684], [0.4401, 0.6579],
    [0.4083, 0.6076], [0.4683, 0.6190], [0.4926, 0.6224], [0.5172, 0.6210], [0.5780, 0.6135],
    [0.5146, 0.6474], [0.4913, 0.6487], [0.4678, 0.6454],
])
# fmt: on
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]
LOWER_LIP = [55, 56, 57, 58, 59, 65, 66, 67]
JAW = np.arange(4, 13)
INNER_LOWER_LIP = [64, 65, 66, 67, 60]
MIDDLE, NECK = np.array([0.50, 0.50]), np.array([0.50, 0.85])
# Half axes of the head as an ellipsoid: width, height and depth.
HEAD = np.array([0.26, 0.36, 0.24])


def animate(
    num_frames: int, size: int = 512, frame_rate: float = 25.0, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of a talking head and their true landmarks.

    A frame depends on its time and the seed alone: a longer clip begins like a shorter one.

    Args:
        num_frames: Number of frames.
        size: Height and width in pixels.
        frame_rate: Frames a second.
        seed: Seed of the motion.

    Yields:
        Pairs of uint8 RGB `(size, size, 3)` and float32 `(68, 2)` in [0, 1].

    Example:

    ```python
    frames, landmarks = zip(*animate(100, size=256))
    ```
    """
    x, y, side = CROP
    picture = data.astronaut()[y : y + side, x : x + side]
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
    around, follow = _surroundings()
    source = np.concatenate([LANDMARKS, around])
    triangles = Delaunay(source).simplices
    motion = _Motion(seed)
    for frame in range(num_frames):
        pose, mouth, lids = motion(frame / frame_rate)
        target = _turn(source, np.concatenate([np.ones(68), follow]), pose)
        # The lower teeth's edge stays with the skull, the lower lip leaves it.
        teeth = target[INNER_LOWER_LIP].copy()
        drop = np.array([0.0, mouth])
        target[LOWER_LIP] += drop
        target[[48, 54, 60, 64]] += 0.3 * drop
        target[JAW] += 0.8 * np.sin(np.pi * (JAW - 3) / 10)[:, None] * drop
        target[UPPER_LIDS] += lids * (target[LOWER_LIDS] - target[UPPER_LIDS])
        image = _warp(picture, source, target, triangles)
        if mouth > 0:
            image = _cavity(image, np.concatenate([teeth, target[INNER_LOWER_LIP][::-1]]))
        yield image, target[:68].astype("float32")


def write(path, seconds: float = 10, size: int = 512, frame_rate: float = 25.0, seed: int = 0):
    """Write the clip as H.264 and its landmarks beside it, as `.npz`.

    Args:
        path: Target, such as `astronaut.mp4`.
        seconds: Length.
        size, frame_rate, seed: See `animate`.

    Returns:
        Float32 landmarks `(frames, 68, 2)` in [0, 1].
    """
    path = Path(path)
    landmarks = []
    with VideoWriter(path, frame_rate, crf=18, preset="medium") as video:
        for frame, points in animate(round(seconds * frame_rate), size, frame_rate, seed):
            video.write(frame)
            landmarks.append(points)
    np.savez_compressed(path.with_suffix(".npz"), landmarks=np.stack(landmarks))
    return np.stack(landmarks)


class _Motion:
    """Pose, mouth and lids at a time in seconds."""

    def __init__(self, seed):
        self.seed = seed
        rng = np.random.default_rng((seed, 0))
        self.rates = rng.uniform(0.08, 0.45, size=(6, 3))
        self.phases = rng.uniform(0, 2 * np.pi, size=(6, 3))
        self.sizes = rng.dirichlet(np.ones(3) * 4, size=6)

    def __call__(self, time):
        wave = (self.sizes * np.sin(2 * np.pi * self.rates * time + self.phases)).sum(1)
        # yaw, pitch, roll in radians, shift in parts of the picture, nearness
        pose = wave * np.array([0.45, 0.22, 0.12, 0.035, 0.025, 0.03])
        return pose, self._mouth(time), self._lids(time)

    def _mouth(self, time):
        """Syllables of 0.18 s in phrases of 2 s; below 0 the lips close over the teeth."""
        rng = np.random.default_rng((self.seed, 1, int(time // 2)))
        strength = rng.choice([0.0, 0.5, 0.8, 1.0])
        syllable = int(time / 0.18)
        size = np.random.default_rng((self.seed, 2, syllable)).uniform(0.1, 1.0)
        opening = strength * size * np.sin(np.pi * (time / 0.18 - syllable)) ** 2
        return 0.06 * opening - 0.022 * (1 - strength)

    def _lids(self, time):
        """0 open, 1 closed: one blink in each 3 s."""
        slot = int(time // 3)
        middle = 3 * slot + np.random.default_rng((self.seed, 3, slot)).uniform(0.3, 2.7)
        return float(np.clip(1.6 - abs(time - middle) / 0.09, 0, 1)) * 0.95


def _surroundings():
    """Points around the face: those of hair and neck follow the head, the others stand still."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    hair = MIDDLE + circle * np.array([0.27, 0.34])
    hair = hair[hair[:, 1] < 0.66]
    still = MIDDLE + circle * np.array([0.44, 0.48])
    edge = np.linspace(0, 1, 7)
    zeros, ones = np.zeros_like(edge), np.ones_like(edge)
    border = np.concatenate(
        [np.stack(p, axis=1) for p in ((edge, zeros), (edge, ones), (zeros, edge), (ones, edge))]
    )
    neck = np.array([[0.40, 0.80], [0.50, 0.84], [0.60, 0.80]])
    points = np.concatenate([hair, neck, still, border])
    follow = np.concatenate([np.ones(len(hair)), np.full(3, 0.35), np.zeros(len(still) + 28)])
    points, first = np.unique(np.round(points, 4), axis=0, return_index=True)
    return points, follow[first]


def _turn(points, follow, pose):
    """Turn and shift the head as an ellipsoid; `follow` says how much each point takes part."""
    yaw, pitch, roll, right, down, near = pose
    local = points - MIDDLE
    inside = 1 - (local[:, 0] / HEAD[0]) ** 2 - (local[:, 1] / HEAD[1]) ** 2
    depth = HEAD[2] * np.sqrt(np.clip(inside, 0, 1))
    if len(points) > 35:
        depth[27:36] += np.array([0.0, 0.02, 0.04, 0.06, 0.02, 0.03, 0.04, 0.03, 0.02])
    moved = np.column_stack([local, depth]) @ _rotation(yaw, pitch, roll).T
    # Around a middle that stays: turning does not shift the outline.
    still = np.array([0, 0, 0.5 * HEAD[2]]) @ _rotation(yaw, pitch, 0).T
    shift = np.array([right, down]) - still[:2]
    goal = MIDDLE + (1 + near) * moved[:, :2] + shift
    return points + follow[:, None] * (goal - points)


def _rotation(yaw, pitch, roll):
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    around_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return around_z @ around_x @ around_y


def _warp(picture, source, target, triangles):
    """Piecewise-affine warp: every triangle of the target shows its triangle of the source."""
    size = picture.shape[0]
    a, b = source[triangles] * size - 0.5, target[triangles] * size - 0.5
    ones = np.ones((len(triangles), 3, 1))
    which = np.zeros((size, size), np.int32)
    for number, triangle in enumerate(b):
        cv2.fillConvexPoly(which, np.rint(triangle).astype(np.int32), number)
    # Target to source; a triangle without area (a shut eye) shows nothing.
    matrices = np.linalg.pinv(np.concatenate([b, ones], axis=2)) @ a
    rows, columns = np.mgrid[:size, :size]
    here = np.stack([columns, rows, np.ones_like(rows)], axis=-1).astype("float64")
    places = np.einsum("yxi,yxij->yxj", here, matrices[which]).astype("float32")
    return cv2.remap(
        picture, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _cavity(image, outline):
    """The dark between the teeth and the lower lip, with soft edges."""
    size = image.shape[0]
    mask = np.zeros((size, size), np.uint8)
    points = np.rint((outline * size - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, 4)
    mask = cv2.GaussianBlur(mask, (0, 0), size / 400)[..., None] / 255.0
    return np.rint(image * (1 - mask) + np.array([58, 22, 24]) * mask).astype(np.uint8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", help="the video to write, such as astronaut.mp4")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write(options.output, options.seconds, options.size, seed=options.seed)
    print(f"{options.output} is ready, its landmarks are beside it.")


if __name__ == "__main__":
    main()
