"""How much of the driver's face shape leaks through retargeting, on real clips.

python benchmarks/retargeting.py --data FOLDER --every 5 --pictures /tmp/retargeting

Each driven track is taken apart again; its neutral shape should be the target's own. "3D" is the
distance of the two shapes in head coordinates (root mean square over the 478 points; the shapes
have the canonical head's size), "skull" the same over the 33 points that hardly move with the
expression, "2D" that of the mean contours (68 points) after the best similarity, which sees the
driver's usual pose and expression too; percent are of the distance between the outer corners of
the target's eyes. Blink and mouth are how far the driven face closes its eyes and opens its mouth:
the 2nd and 98th percentile of the openings, the clips' own below.
"""

import argparse
from pathlib import Path

import numpy as np

from keras_vpgc.data import video
from keras_vpgc.data.canonical import canonical_head
from keras_vpgc.data.landmark_sets import MEDIAPIPE_TO_68, eye_opening, mouth_opening
from keras_vpgc.data.retarget import (
    _similarity,
    fit_head,
    neutral_frame,
    neutral_pose,
    project,
    retarget,
)
from keras_vpgc.data.tracking import FaceTracker

PAIRS = [
    ("franck.webm", "obama.mov"),
    ("franck.webm", "expressive_woman_480.mp4"),
    ("obama.mov", "franck.webm"),
    ("expressive_woman_480.mp4", "franck.webm"),
]


def track(file, every, cache):
    """Source pixels `(n, 478, 3)` of every k-th frame with a face, their numbers and the size."""
    info = video.probe(file)
    stored = cache / f"{file.name}.{every}.npz"
    if not stored.exists():
        points, numbers = [], []
        with FaceTracker() as tracker:
            for number, frame in enumerate(video.read_frames(file)):
                if number % every == 0:
                    found = tracker.track([frame])
                    if found.valid[0]:
                        points.append(found.points[0])
                        numbers.append(number)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(stored, points=points, numbers=numbers)
    with np.load(stored) as found:
        points, numbers = found["points"].astype("float64"), found["numbers"]
    return points, numbers, (info.width, info.height)


def moved(driving, target):
    """The driver's points brought to the target's place and size by one similarity."""
    a, b = driving.mean(0)[:, :2], target.mean(0)[:, :2]
    size = np.sqrt(((b - b.mean(0)) ** 2).sum() / ((a - a.mean(0)) ** 2).sum())
    points = driving * size
    points[..., :2] += b.mean(0) - size * a.mean(0)
    return points


def flat(points):
    return points[:, MEDIAPIPE_TO_68, :2].mean(0)


def leakage(points, size, head, target):
    """Root mean square distances: 3D, skull (mm), and in percent 3D, skull, 2D."""
    away = ((fit_head(points, *size).shape - head.shape) ** 2).sum(-1)
    solid = np.sqrt(away.mean())
    skull = np.sqrt(away[np.flatnonzero(canonical_head()[1])].mean())
    eyes = np.linalg.norm(head.shape[33] - head.shape[263])
    a, b = (np.pad(x, ((0, 0), (0, 1))) for x in (flat(points), flat(target)))
    scale, rotation, translation = _similarity(a, b[None])
    difference = scale[0] * a @ rotation[0].T + translation[0] - b
    plane = np.sqrt((difference**2).sum(-1).mean()) / np.linalg.norm(b[36] - b[45])
    return 10 * solid, 10 * skull, 100 * solid / eyes, 100 * skull / eyes, 100 * plane


def openings(points):
    contours = points[:, MEDIAPIPE_TO_68, :2]
    eyes = np.percentile(eye_opening(contours).mean(1), 2)
    return eyes, np.percentile(mouth_opening(contours), 98)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--every", type=int, default=5, help="use every k-th frame")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/retargeting_tracks"))
    parser.add_argument("--pictures", type=Path, help="folder for contact sheets of the contours")
    options = parser.parse_args()
    clips, heads = {}, {}
    for name in {name for pair in PAIRS for name in pair}:
        clips[name] = track(options.data / name, options.every, options.cache)
        heads[name] = fit_head(clips[name][0], *clips[name][2])
    print(
        "| target | driver | way | 3D mm | skull mm | 3D % | skull % | 2D % | blink | mouth |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for target, driver in PAIRS:
        points, _, size = clips[target]
        head, driving = heads[target], heads[driver]
        ways = {"moved": moved(clips[driver][0], points)}
        for mode in ("absolute", "relative"):
            ways[mode] = project(retarget(driving, head.shape, neutral_pose(head), mode))
        for way, result in ways.items():
            numbers = leakage(result, size, head, points)
            blink, mouth = openings(result)
            print(
                f"| {Path(target).stem} | {Path(driver).stem} | {way} | "
                + " | ".join(f"{n:.2f}" for n in numbers)
                + f" | {blink:.3f} | {mouth:.2f} |",
                flush=True,
            )
        if options.pictures:
            sheet(options, target, driver, clips, ways)
    for name, (points, _, _) in clips.items():
        blink, mouth = openings(points)
        print(f"{name}: blink {blink:.3f}, mouth {mouth:.2f}, neutral {neutral_frame(heads[name])}")


def sheet(options, target, driver, clips, ways):
    """A picture: the driver's frames and each way's contours on the target's neutral frame."""
    import cv2

    from keras_vpgc.data import crop as crops
    from keras_vpgc.visualization import contact_sheet, draw_landmarks

    side = 256

    def frames(name, wanted):
        wanted, found = set(map(int, wanted)), {}
        for number, frame in enumerate(video.read_frames(options.data / name, 0, max(wanted) + 1)):
            if number in wanted:
                found[number] = frame
        return found

    points, numbers, size = clips[driver]
    eyes, mouth = (
        f(points[:, MEDIAPIPE_TO_68, :2]) for f in (lambda x: eye_opening(x).mean(1), mouth_opening)
    )
    # Extremes first, then evenly through the clip.
    picked = [np.argmin(eyes), np.argmax(eyes), np.argmax(mouth)]
    picked = np.array(picked + list(np.linspace(0, len(points) - 1, 7).astype(int)))
    crop = crops.choose_crop(points, np.ones(len(points), bool), *size)
    found = frames(driver, numbers[picked])
    rows = [
        [
            draw_landmarks(
                crops.apply(found[int(numbers[i])], crop, side),
                crops.to_crop(points[i], crop)[MEDIAPIPE_TO_68, :2],
            )
            for i in picked
        ]
    ]
    points, numbers, size = clips[target]
    crop = crops.choose_crop(points, np.ones(len(points), bool), *size)
    neutral = int(numbers[neutral_frame(fit_head(points, *size))])
    behind = crops.apply(frames(target, [neutral])[neutral], crop, side)
    for result in ways.values():
        landmarks = crops.to_crop(result, crop)[:, MEDIAPIPE_TO_68, :2]
        rows.append([draw_landmarks(behind // 2, landmarks[i]) for i in picked])
    image = contact_sheet([np.stack(r) for r in rows], ["driver", *ways], len(picked), side)
    options.pictures.mkdir(parents=True, exist_ok=True)
    file = options.pictures / f"{Path(target).stem}_by_{Path(driver).stem}.png"
    cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
