"""Speed and memory of the way from a video to a portrait folder.

python benchmarks/data.py decode me.mp4 other.mp4
python benchmarks/data.py memory me.mp4 --minutes 10
python benchmarks/data.py prepare me.mp4 --size 512 --workers 1 2
python benchmarks/data.py prepare me.mp4 --size 512 --workers 2 --minutes 10
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2

from keras_vpgc.data import video


def with_pyav(path, threads):
    """Decode to RGB as `read_frames` does, with a way of threading of PyAV's choice."""
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        for frame in container.decode(stream):
            yield reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()


def with_opencv(path):
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    while (read := capture.read())[0]:
        yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    capture.release()


def decode(paths, repeats):
    """A table of frames a second and CPU milliseconds a frame."""
    readers = {
        "read_frames": video.read_frames,
        "PyAV, auto": lambda path: with_pyav(path, "AUTO"),
        "PyAV, slices": lambda path: with_pyav(path, "SLICE"),
        "PyAV, one thread": lambda path: with_pyav(path, "NONE"),
        "OpenCV": with_opencv,
    }
    print("| file | reader | frames/s | CPU ms/frame |\n|---|---|---|---|")
    for path in paths:
        info = video.probe(path)
        name = f"{path.name}, {info.codec} {info.width}x{info.height}"
        best = dict.fromkeys(readers, (float("inf"), float("inf")))
        for _ in range(repeats):  # in turn, since other work on the machine comes and goes
            for reader, read in readers.items():
                wall, cpu = time.perf_counter(), time.process_time()
                count = sum(1 for _ in read(path))
                spent = time.perf_counter() - wall, time.process_time() - cpu
                best[reader] = tuple(
                    min(a, b / count) for a, b in zip(best[reader], spent, strict=True)
                )
        for reader, (wall, cpu) in best.items():
            print(f"| {name} | {reader} | {1 / wall:.0f} | {1000 * cpu:.2f} |")


def seek(paths, ranges=20):
    """A table of the milliseconds to the first frame of a range."""
    print("| file | frames | opening, ms | first frame of a range, ms |\n|---|---|---|---|")
    for path in paths:
        began = time.perf_counter()
        count = video.probe(path).frame_count
        opened = time.perf_counter() - began
        began = time.perf_counter()
        for start in range(0, count, -(-count // ranges)):
            next(video.read_frames(path, start))
        spent = (time.perf_counter() - began) / ranges
        print(f"| {path.name} | {count} | {1000 * opened:.0f} | {1000 * spent:.0f} |")


def loop(path, output, minutes):
    """Write the packets of a video again and again; nothing is encoded anew."""
    with av.open(str(path)) as source, av.open(str(output), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        info = video.probe(path)
        for i in range(round(60 * minutes / info.duration)):
            source.seek(0)
            shift = round(i * info.duration / stream.time_base)
            for packet in source.demux(stream):
                if packet.size:
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = copy
                    target.mux(packet)


def sway(path, output, minutes):
    """Play a video forwards and backwards again and again: one long shot without a cut."""
    frames, rate = list(video.read_frames(path)), video.probe(path).frame_rate
    count = round(60 * minutes * rate)
    with video.VideoWriter(output, rate) as target:
        for i in range(count):
            place = i % (2 * len(frames) - 2)
            target.write(frames[min(place, 2 * len(frames) - 2 - place)])


CHILD = """
import resource, sys
from keras_vpgc.data import video
count = sum(1 for _ in video.read_frames(sys.argv[1]))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def memory(paths, minutes):
    """A table of the peak of memory of a process that reads a video, as it is and looped."""
    print("| file | frames | peak MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            looped = Path(folder) / f"looped_{path.stem}.mkv"
            loop(path, looped, minutes)
            for file in (path, looped):
                done = subprocess.run(
                    [sys.executable, "-c", CHILD, str(file)],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                count, peak = done.stdout.split()
                print(f"| {file.name} | {count} | {float(peak):.0f} |")


PREPARE_CHILD = """
import resource, sys, time
from keras_vpgc.data import prepare
wall = time.perf_counter()
portrait = prepare(sys.argv[1], sys.argv[2], size=int(sys.argv[3]), workers=int(sys.argv[4]),
                   progress=False)
wall = time.perf_counter() - wall
own, crew = (resource.getrusage(x) for x in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
cpu = sum(x.ru_utime + x.ru_stime for x in (own, crew))
print(len(portrait), wall, cpu, own.ru_maxrss / 1024)
"""


def prepare(paths, size, workers, minutes):
    """A table of the speed and memory of `prepare`; CPU time includes starting the processes."""
    print("| file | workers | frames | frames/s | CPU ms/frame | peak MiB without the workers |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            if minutes:
                long = Path(folder) / f"long_{path.stem}.mp4"
                sway(path, long, minutes)
                path = long
            for count in workers:
                output = Path(folder) / f"{path.stem}_{count}"
                done = subprocess.run(
                    [sys.executable, "-c", PREPARE_CHILD, path, output, str(size), str(count)],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                frames, wall, cpu, peak = map(float, done.stdout.split())
                print(
                    f"| {path.name} | {count} | {frames:.0f} | {frames / wall:.1f} | "
                    f"{1000 * cpu / frames:.1f} | {peak:.0f} |"
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=["decode", "seek", "memory", "prepare"])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="make the video that long; 10 for memory")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    if options.table == "decode":
        decode(options.videos, options.repeats)
    elif options.table == "seek":
        seek(options.videos)
    elif options.table == "prepare":
        prepare(options.videos, options.size, options.workers, options.minutes)
    else:
        memory(options.videos, options.minutes or 10)


if __name__ == "__main__":
    main()
