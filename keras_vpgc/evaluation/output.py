"""What an evaluation leaves in a folder."""

import contextlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_vpgc.data.video import VideoWriter
from keras_vpgc.errors import ELSEWHERE, VPGCError, check_writable, missing_extra, writing
from keras_vpgc.evaluation.clips import FLOOR, TRUTH
from keras_vpgc.evaluation.eyes_and_mouth import agreement_cells
from keras_vpgc.evaluation.protocol import ALL_COLUMNS, CAPTIONS
from keras_vpgc.progress import progress_bar
from keras_vpgc.reenactment.provenance import Provenance
from keras_vpgc.visualization import side_by_side
from keras_vpgc.visualization.evaluation_plots import OPENING_TITLES, openings_picture
from keras_vpgc.visualization.evaluation_report import Evaluation, evaluation_report

FLOOR_TITLE = "floor (truth, a frame late)"
VIDEO = "side_by_side.mp4"
OPENINGS_PLOT = "eyes_and_mouth.png"
# Width in pixels of the video of all systems, and the greatest of one of them.
VIDEO_WIDTH, PANEL_WIDTH = 1280, 400


def check_output(output, instead: str = ELSEWHERE, report: bool = True) -> Path | None:
    """The output folder, which may exist.

    Args:
        output: A folder or `None`.
        instead: What to do where it cannot be written.
        report: Is a page with plots to be written?

    Raises:
        VPGCError: if it is a file or cannot be written, or what draws the report is missing.
    """
    if output is None:
        return None
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise VPGCError(f"{output}, the folder of the scores, is a file: move it away.")
    check_writable(output, instead)
    if report and importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "landmarks")
    return output


@contextlib.contextmanager
def publish(folder: Path, instead: str = ELSEWHERE) -> Iterator[Path]:
    """A place for files that get their names in a folder when all are whole, or never.

    Args:
        folder: The folder, which need not exist.
        instead: What to do where it cannot be written.

    Yields:
        Where to write them.

    Raises:
        VPGCError: if the disk is full or the place is read-only.
    """
    partial = folder / ".partial"
    try:
        with writing(folder, instead):
            # A killed one may have left something.
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            for file in sorted(partial.iterdir()):
                os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # only if there is nothing in it


def region_title(region: str, protocol: dict) -> str:
    """What a region is, for a table's head."""
    where = protocol["regions"][region]
    if region == "face":
        side, square = where["size"], where["crop"]
        return (
            f"Face: the square {square['x']:g},{square['y']:g},{square['size']:g} of the truth at "
            f"{side}x{side} pixels, {protocol['frames']} frames."
        )
    return (
        f"Full picture at {where['width']}x{where['height']} pixels, {protocol['frames']} frames."
    )


def titled(rows: dict) -> dict:
    """Rows by name, the floor called as it is in tables."""
    return {FLOOR_TITLE if name == FLOOR else name: row for name, row in rows.items()}


def write(folder: Path, name: str, found: dict, result: dict, progress: bool = True) -> None:
    """Write `NAME.json`, `NAME.md` and `scores.npz`; then video, plot and `report.html`.

    Args:
        folder: Where.
        name: Such as `"comparison"`.
        found: What the JSON holds.
        result: What `score_videos` returns, `pairs` beside.
        progress: Show a progress bar?

    Raises:
        VPGCError: if the folder cannot be written; numbers that were written stay.
    """
    with publish(folder) as partial:
        text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
        (partial / f"{name}.json").write_text(text, encoding="utf-8")
        notes = "".join(f"\n- {note}" for note in found["notes"])
        text = f"{found['table']}\n" + (f"{notes}\n" if notes else "")
        (partial / f"{name}.md").write_text(text, encoding="utf-8")
        np.savez_compressed(partial / "scores.npz", **result["per_frame"])
    for stale in (VIDEO, OPENINGS_PLOT, "report.html"):
        (folder / stale).unlink(missing_ok=True)
    region = next(iter(result["scores"]))
    with publish(folder) as partial:
        _write_video(partial / VIDEO, result, region, progress)
        evaluation = _evaluation(name, result, region, partial / VIDEO)
        if evaluation.openings:
            (partial / OPENINGS_PLOT).write_bytes(openings_picture(evaluation))
        page = evaluation_report(evaluation)
        (partial / "report.html").write_text(page, encoding="utf-8")


def _write_video(path, result, region, progress):
    """The truth and all systems beside each other, as a region shows them."""
    import cv2

    pictures, count = result["pictures"], result["frames"]
    names = [TRUTH, *pictures.clips]
    widest = min(PANEL_WIDTH, VIDEO_WIDTH // len(names))
    size = None
    provenance = Provenance(composite=True)
    with (
        pictures.streams() as streams,
        VideoWriter(
            path,
            result["protocol"]["frame_rate"],
            crf=23,
            metadata=provenance.metadata(),
            finish=provenance.sign,
        ) as video,
        progress_bar(count, "side by side", show=progress) as bar,
    ):
        for frames in zip(*streams, strict=True):
            panels = [pictures.cut(frame, region) for frame in frames]
            if size is None:
                height, width = panels[0].shape[:2]
                scale = min(1.0, widest / width)
                size = round(width * scale), round(height * scale)
            panels = [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in panels]
            video.write(side_by_side(panels, names))
            bar.update()


def _evaluation(name, result, region, video):
    """What the page of scored videos shows."""
    protocol, per_frame = result["protocol"], result["per_frame"]
    systems = list(result["pictures"].clips)

    def scores(system):
        found = {key: per_frame.get(f"{region}/{system}/{key}") for key, _, _ in ALL_COLUMNS}
        return {key: values for key, values in found.items() if values is not None}

    # The first frame of the floor has none before it.
    floor = {
        key: np.concatenate([[np.nan], values])
        for key, values in scores(FLOOR).items()
        if len(values) == result["frames"] - 1
    }
    files = [protocol["systems"][system]["file"] for system in systems]
    truth = protocol["truth"]["file"]
    titles = {r: region_title(r, protocol) for r in result["scores"]}
    level = f"{100 * protocol['interval']['level']:g}%"
    intro = (
        f"{result['frames']} frames of {truth} and {', '.join(files)}. Means over frames, with "
        f"{level} intervals by stretches of one second."
    )
    if len(titles) > 1:
        intro += f" Pictures and curves are of the {region}."
    if not result["signals"]:
        intro += " No landmarks were found, so that there are no errors against pose and mouth."
    return Evaluation(
        title=f"{files[0] if len(files) == 1 else f'{len(files)} systems'} against {truth}",
        intro=intro,
        tables={
            titles[r]: {**{s: rows[s] for s in systems}, FLOOR_TITLE: rows[FLOOR]}
            for r, rows in result["scores"].items()
        },
        pairs={titles[r]: pairs for r, pairs in result.get("pairs", {}).items()},
        scores={**{s: scores(s) for s in systems}, FLOOR_TITLE: floor},
        shown=systems,
        pictures=lambda system, places: result["pictures"].pairs(system, places, region),
        frames=per_frame["frames/truth"],
        times=per_frame["times"],
        signals=result["signals"],
        openings={
            part: {name: per_frame[f"{part}/{name}"] for name in (TRUTH, *systems)}
            for part in (OPENING_TITLES if result["eyes_and_mouth"] else ())
        },
        agreement=agreement_cells(titled(result["eyes_and_mouth"])),
        captions=CAPTIONS,
        video=video,
        video_caption=f"Side by side: truth, {', '.join(systems)}",
        columns=ALL_COLUMNS,
        notes=result["notes"],
        settings={"Protocol": protocol},
        footer=f"The same numbers are in {name}.json and {name}.md, those of each frame in "
        f"scores.npz; {VIDEO} is the video above.",
    )
