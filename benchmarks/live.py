"""A puppet that is driven live: milliseconds of each stage and from picture to image.

KERAS_BACKEND=torch python benchmarks/live.py runs/me --driving friend.mp4
KERAS_BACKEND=torch python benchmarks/live.py runs/me --driving friend.mp4 --minutes 10 --rows file
KERAS_BACKEND=torch python benchmarks/live.py --driving friend.mp4 --preset vpgc_512
KERAS_BACKEND=torch python benchmarks/live.py --tiny      # whether it works; no measurement

`live` plays the clip at its own pace and drops what is late, `file` takes every frame as fast as it
goes, with one tracker and with one a core; nothing is encoded. `push` is the network alone, by
landmarks at rest. Without a run a puppet of `--preset` is made up, of random weights, which takes
as long. `--minutes` plays the clip again and again; the peak of memory, of this process alone, and
its growth over the second half of the row tell whether memory stays flat.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import keras

import keras_vpgc
from benchmarks import clock
from keras_vpgc.data import parallel
from keras_vpgc.data.capture import Clip
from keras_vpgc.data.retarget import fit_head, neutral_pose
from keras_vpgc.data.tracking import FaceTracker
from keras_vpgc.models import PortraitReenactor
from keras_vpgc.reenactment import Puppet
from keras_vpgc.version import PUPPET_SCHEMA_VERSION

ROWS = ("push", "live", "file", "file-parallel")
COLUMNS = ("row", "trackers", "frames", "dropped", "frames/s", "p50 ms", "p99 ms", "bound by")


class Again:
    """A clip, again and again for some seconds."""

    def __init__(self, path, live, seconds):
        self.clip, self.live, self.seconds = Clip(path, live=live), live, seconds
        self.path, self.frame_rate = self.clip.path, self.clip.frame_rate

    @property
    def waited(self):
        """As the clip has it."""
        return self.clip.waited

    def __iter__(self):
        before = 0.0
        while True:
            second = 0.0
            for picture, second in self.clip:
                if self.seconds and before + second >= self.seconds:
                    return
                yield picture, before + second
            if not self.seconds:
                return
            before += second + 1 / self.frame_rate


def resident() -> float:
    """MiB of this process now; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def made_up(preset, driving, precision):
    """A puppet of random weights of the driving person."""
    pictures = [picture for _, (picture, _) in zip(range(30), Clip(driving), strict=False)]
    with FaceTracker() as tracker:
        track = tracker.track(pictures)
    height, width = pictures[0].shape[:2]
    head = fit_head(track.points[track.valid], width, height)
    from keras_vpgc.data.coverage import seen_range

    keras.utils.set_random_seed(0)
    metadata = {
        "schema_version": PUPPET_SCHEMA_VERSION,
        "preset": preset,
        "source_sha256": "",
        "crop": {"x": 0.0, "y": 0.0, "size": float(min(height, width))},
        "frame_rate": 25.0,
        "shape": head.shape.tolist(),
        "pose": neutral_pose(head),
        "seen": seen_range(head),
    }
    return Puppet(PortraitReenactor.from_preset(preset, metadata=metadata), precision)


def push(puppet, count):
    """Statistics of landmarks at rest."""
    with puppet.stream(lookahead=0) as stream:
        for _ in range(count):
            stream.push(stream._rest)
    return stream.stats()


def drive(puppet, options, row):
    """Statistics of a row with a source, and the growth of memory in MiB."""
    live = row == "live"
    workers = parallel.default_workers() if row == "file-parallel" else 1
    source = Again(options.driving, live, 60 * options.minutes)
    seen = []
    with puppet.stream(source, retargeting="relative", guard="clamp", workers=workers) as stream:
        for frame in stream:
            if frame.number % 25 == 0:
                seen.append(resident())
    half = seen[len(seen) // 2 :]
    return stream.stats(), (half[-1] - half[0] if half else 0.0), max(seen, default=0.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", type=Path, help="a run folder or a puppet.keras")
    parser.add_argument("--driving", type=Path)
    parser.add_argument("--preset", default="vpgc_512")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--frames", type=int, default=200, help="of the row push")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.tiny:
            from examples.animated_portrait import write

            options.driving = Path(folder) / "astronaut.mp4"
            write(options.driving, seconds=1, size=128)
            options.run, options.preset, options.frames = None, "vpgc_tiny", 5
        if options.driving is None:
            parser.error("name a driving video, or --tiny")
        measure(options)


def measure(options):
    """Print the tables."""
    if options.run is None:
        puppet = made_up(options.preset, options.driving, options.precision)
    else:
        puppet = keras_vpgc.load(options.run, precision=options.precision)
    clock.say(
        f"{clock.backend()}, {clock.device_name()}, {parallel.default_workers()} cores; "
        f"{puppet.metadata['preset']}, {puppet.model.get_config()['dtype']}; "
        f"{options.driving.name}; {time.strftime('%Y-%m-%d')}"
    )
    found = {}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for row in options.rows:
        growth = None
        if row == "push":
            stats = push(puppet, options.frames)
        else:
            stats, *growth = drive(puppet, options, row)
        found[row] = stats, growth
        latency = stats["latency"]
        tracking = stats["stages"].get("tracking", {})
        cells = (
            row,
            tracking.get("workers", "-"),
            stats["shown"],
            stats["dropped"],
            f"{stats['frames_per_second']:.1f}",
            f"{latency['p50_ms']:.1f}",
            f"{latency['p99_ms']:.1f}",
            stats["bound_by"],
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    for row, (stats, memory) in found.items():
        print(f"\n{row}\n\n{stats}")
        if memory:
            print(f"Memory: {memory[1]:.0f} MiB at most, {memory[0]:+.0f} over the second half.")


if __name__ == "__main__":
    main()
