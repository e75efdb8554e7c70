"""Speed and memory of scoring a video against another.

KERAS_BACKEND=jax python benchmarks/evaluation.py                   # 250 and 1000 frames, 512x512
KERAS_BACKEND=torch python benchmarks/evaluation.py --frames 250 --lpips none
python benchmarks/evaluation.py --clip me.mp4                       # its face, its frames repeated

All image metrics, landmarks, poses and expressions, intervals, side-by-side video and report. Each
number of frames runs in a process of its own, so that peaks of memory can be compared.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def make(folder, clip, frames, size):
    """A true video and a blurred one of as many frames."""
    import cv2

    from examples.animated_portrait import animate
    from keras_vpgc.data import video

    def endlessly():
        while True:
            if clip is None:
                yield from (frame for frame, _ in animate(250, size))
            else:
                yield from video.read_frames(clip)

    truth, blurred = folder / f"truth_{frames}.mp4", folder / f"blurred_{frames}.mp4"
    with video.VideoWriter(truth, 25) as one, video.VideoWriter(blurred, 25) as other:
        for _, frame in zip(range(frames), endlessly(), strict=False):
            one.write(frame)
            other.write(cv2.GaussianBlur(frame, (0, 0), 2.0))
    return truth, blurred


def score(truth, prediction, output, size, lpips):
    """One row of the table, in this process."""
    import keras

    from keras_vpgc.evaluation.pair import evaluate_pair

    wall, before = time.perf_counter(), os.times()
    found = evaluate_pair(
        prediction, truth, output, size=size, crop="face", lpips=lpips, progress=False
    )
    wall, after = time.perf_counter() - wall, os.times()
    cpu = sum(after[:4]) - sum(before[:4])
    peaks = [
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    row = found["scores"]["face"]
    cells = [
        keras.backend.backend(),
        found["frames"],
        f"{wall:.0f} s",
        f"{cpu:.0f} s",
        *(f"{peak:.0f} MiB" for peak in peaks),
        f"{row['psnr']:.2f} dB",
    ]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", nargs="+", type=int, default=[250, 1000])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--clip", help="footage of a face; default: the animated portrait")
    parser.add_argument("--lpips", default="alex", choices=["alex", "vgg", "none"])
    parser.add_argument("--one", nargs=3, metavar=("TRUTH", "PREDICTION", "OUTPUT"))
    options = parser.parse_args()
    if options.one:
        lpips = None if options.lpips == "none" else options.lpips
        score(*options.one, options.size, lpips)
        return
    print("| backend | frames | wall | CPU | peak | peak of a tracker | PSNR |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for frames in options.frames:
            videos = make(Path(folder), options.clip, frames, options.size)
            same = ["--size", str(options.size), "--lpips", options.lpips]
            command = [sys.executable, __file__, *same, "--one", *map(str, videos), folder]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
