"""Driving a puppet by a video."""

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import sound as sounds
from keras_vpgc.data import video
from keras_vpgc.data.overlap import Behind, ahead
from keras_vpgc.data.tracking import tracker_name
from keras_vpgc.data.video_parts import (
    FACES,
    JOINED,
    VideoParts,
    only_job,
    open_job,
    remove_job,
)
from keras_vpgc.errors import NoFaceError, VPGCError, writing
from keras_vpgc.progress import progress_bar
from keras_vpgc.reenactment import driving as sources
from keras_vpgc.reenactment.background import AlphaWriter, background_key, check_alpha_target
from keras_vpgc.reenactment.compositor import check_composition
from keras_vpgc.reenactment.provenance import Provenance, Source
from keras_vpgc.reenactment.puppet import Puppet, check_guard, check_retargeting
from keras_vpgc.version import __version__
from keras_vpgc.visualization import side_by_side as together

PART_FRAMES = 250


def reenact(
    puppet,
    driving,
    output,
    *,
    retargeting: str = "auto",
    neutral: float | None = None,
    motion: float = 1.0,
    guard: str = "warn",
    missing: str = "hold",
    start: float | None = None,
    end: float | None = None,
    side_by_side: bool = False,
    paste_back: str = "none",
    paste_into=None,
    paste_into_start: float = 0.0,
    background: str | os.PathLike | None = None,
    sound: bool = True,
    batch_size: int = 8,
    precision: str | None = None,
    engine: str | None = None,
    overwrite: bool = False,
    tracker_model=None,
    provenance: Provenance | None = None,
    progress: bool = True,
) -> Path:
    """Render a puppet in the poses of a driving video.

    The result has the driving clip's times, frame by frame, and its sound. While it is made, what
    is done is in a folder beside it, `out.mp4.parts`, as files that can be played: a job that was
    stopped goes on from there by the same call, to the same picture.

    Args:
        puppet: A `Puppet`, a `puppet.keras`, a run folder or an exported `.onnx`.
        driving: The driving video; or a file of landmarks, `.npz` or `.npy` (see
            `keras_vpgc.reenactment.driving.by_landmarks`); or a folder of contour images (see
            `keras_vpgc.reenactment.contours.read_contours`), a frame each at the puppet's rate.
        output: The video to write, such as `out.mp4`.
        retargeting: See `Puppet.landmarks_of`.
        neutral: Second of the driving video at which the face is at rest; default: chosen, see
            `keras_vpgc.data.retarget.neutral_frame`.
        motion: Strength of the head motion, 0 (still) to 1 (as driven).
        guard: Where the driver leaves what the puppet has seen: `"warn"`, `"clamp"` or `"off"`.
        missing: Where the video shows no face: `"hold"` the last pose, `"fade"` to black and back,
            or `"skip"` these frames and their sound.
        start: Where to begin, in seconds of the driving video.
        end: Where to stop, in seconds of the driving video.
        side_by_side: Show the driving face beside the result?
        paste_back: Put the picture back into full frames: `"crop"`, at the puppet's own crop, for
            its own person before the same camera; `"face"`, over the driving person's face;
            `"auto"`, whichever fits; `"none"`.
        paste_into: A video to paste into instead of the driving one, such as the puppet's own
            source, at its crop; it runs to and fro where it is shorter.
        paste_into_start: Second of `paste_into` that belongs to the first driving frame.
        background: `"green"`, `"#rrggbb"` or a picture's path to put behind the person; or
            `"alpha"` to cut the person out: the output is then a `.mov` (ProRes 4444), a `.webm`
            (VP9) or a folder of PNG files, without sound, and begins anew where it was stopped.
        sound: Give the result the driving video's sound, as AAC?
        batch_size: Frames computed at once.
        precision: That of a puppet given by its path, see `Puppet.load`; default: `"auto"`.
        engine: What runs an exported puppet given by its path, see `Puppet.load`.
        overwrite: Replace an existing output, and what an unfinished job of other settings left?
        tracker_model: Path of the face landmarker's model.
        provenance: How the output says that it is synthetic, see `Provenance`, whose `puppet`,
            `driving_sha256`, `sources` and `composite` are filled in; default: by metadata and a
            manifest.
        progress: Show progress bars?

    Returns:
        Path of the output.

    Raises:
        VPGCError: for a driving file that is no video or shows no face, landmarks that do not fit
            the puppet, a folder of contours that cannot be read or is to be retargeted, an output
            that exists, cannot be written or is being made by another process, or settings that do
            not fit.

    Example:

    ```python
    reenact("runs/me", "friend.mp4", "me_like_friend.mp4")
    ```
    """
    # Before the minutes that tracking takes.
    output, driving = Path(output), Path(driving)
    cut_out = background == "alpha"
    if cut_out:
        check_alpha_target(output, overwrite)
    else:
        video.check_target(output, overwrite)
    for source, what in (
        (driving, "the driving video"),
        (paste_into, "the video to paste into"),
        (background, "the background"),
    ):
        for target in (output, output.with_stem(f"{output.stem}.partial")):
            if source is not None and target.exists() and Path(source).exists():
                if target.samefile(source):
                    raise VPGCError(f"{target} is {what} itself: choose another output.")
    if batch_size < 1:
        raise VPGCError(f"batch_size = {batch_size} is impossible: give 1 or more.")
    provenance = provenance or Provenance()
    provenance.check(output)
    check_retargeting(retargeting, neutral, motion)
    check_guard(guard)
    if missing not in sources.MISSING:
        raise VPGCError(
            f"There is no way {missing!r} with frames without a face: choose one of "
            f"{', '.join(sources.MISSING)}."
        )
    if side_by_side and cut_out:
        raise VPGCError(
            "A person who is cut out has no room beside the driving one: leave --side-by-side or "
            "--background alpha out."
        )
    if paste_into is not None and paste_back == "none":
        paste_back = "crop"
    check_composition(paste_back, paste_into, background, paste_into_start)
    if not isinstance(puppet, Puppet):
        puppet = Puppet.load(puppet, precision or "auto", engine)
    elif precision is not None or engine is not None:
        raise VPGCError(
            "A Puppet has its precision already, and its engine: give the path of its file or run, "
            "or leave these out."
        )
    drawn, stored = sources.is_drawn(driving), sources.is_stored(driving)
    if drawn or stored:
        sources.check_free(driving, retargeting, neutral, motion)
    if (drawn or stored) and paste_back != "none":
        raise VPGCError(
            f"Only a driving video has frames to paste into; {driving} has none: leave "
            "--paste-back and --paste-into out."
        )
    part: dict[str, Any] = {"start": start, "end": end, "batch_size": batch_size}
    if stored:
        sources.read_landmarks(driving)
    elif not drawn:
        video.probe(driving)
        sources.rest_frame(driving, neutral, start, end)
    checksum = sources.checksum(driving)
    provenance = dataclasses.replace(
        provenance,
        puppet=puppet,
        driving_sha256=checksum,
        sources=_sources(driving, paste_back, paste_into, background, side_by_side),
        composite=paste_back != "none"
        or (side_by_side and not (drawn or stored))
        or (background is not None and Path(background).is_file()),
    )
    settings = {
        **part,
        "puppet": puppet.fingerprint(),
        "driving": checksum,
        "retargeting": retargeting,
        "neutral": neutral,
        "motion": motion,
        "guard": guard,
        "missing": missing,
        "side_by_side": side_by_side,
        "paste_back": paste_back,
        "paste_into": None if paste_into is None else assets.sha256(paste_into),
        "paste_into_start": paste_into_start,
        "background": background_key(background),
        "provenance": provenance.enabled,
        "mark": provenance.mark,
        "invisible_mark": provenance.invisible,
        "precision": puppet.computes_in,
        "backend": puppet.runtime,
        "version": __version__,
    }
    folder = output.with_name(output.name + ".parts")
    with only_job(output):
        if drawn or stored:
            by = sources.by_contours if drawn else sources.by_landmarks
            drive = by(puppet, driving, **part, background=background)
        else:
            tracker = {
                "driving": checksum,
                "start": start,
                "end": end,
                "tracker": tracker_name(),
                "model": assets.sha256(assets.find("face_landmarker", tracker_model)),
            }
            settings["tracking"] = tracker
            composition = {}
            if paste_back != "none" or background is not None:
                composition = {
                    "place": paste_back,
                    "into": paste_into,
                    "into_start": paste_into_start,
                    "background": background,
                }
            open_job(folder, settings, overwrite)
            open_job(folder / FACES, tracker, overwrite=True, work="*.npz")
            try:
                drive = sources.by_video(
                    puppet,
                    driving,
                    **part,
                    missing=missing,
                    retargeting=retargeting,
                    neutral=neutral,
                    motion=motion,
                    guard=guard,
                    tracker_model=tracker_model,
                    composition=composition,
                    folder=folder / FACES,
                    progress=progress,
                )
            except NoFaceError:
                remove_job(folder)
                raise
        with drive.compositor or contextlib.nullcontext():
            frames = functools.partial(
                _frames, drive, provenance, side_by_side, batch_size, progress
            )
            if cut_out:
                _write_alpha(frames, drive, output, provenance, overwrite)
                if not (drawn or stored):
                    remove_job(folder)
            else:
                # A part begins with a batch: batches are the same wherever a job begins again.
                length = batch_size * math.ceil(PART_FRAMES / batch_size)
                parts = VideoParts(
                    folder,
                    settings,
                    drive.count,
                    length,
                    drive.rate,
                    drive.times,
                    provenance.metadata(),
                    overwrite=overwrite,
                )
                _write_parts(frames, drive, parts, output, provenance, sound)
    return output


def _sources(driving, paste_back, paste_into, background, side_by_side):
    """The files that the result is made from."""
    shown = side_by_side or (paste_back != "none" and paste_into is None)
    sources = [Source(driving, "Driving video", shown)]
    if paste_into is not None:
        sources.append(Source(Path(paste_into), "Video that is pasted into", True))
    if background is not None:
        sources.append(Source(Path(background), "Background", True))
    return tuple(sources)


def _write_alpha(frames, drive, output, provenance, overwrite):
    with AlphaWriter(
        output,
        drive.rate,
        overwrite=overwrite,
        times=drive.times,
        metadata=provenance.metadata(output),
        finish=provenance.sign,
    ) as writer:
        with Behind(writer.write) as write:
            for frame in frames(0):
                write(frame)


def _write_parts(frames, drive, parts, output, provenance, sound):
    with parts:
        try:
            with Behind(parts.write) as write:
                for frame in frames(parts.done):
                    write(frame)
        except BaseException:
            if parts.done:
                warnings.warn(
                    f"What is rendered so far can be played in {parts.folder}; the same call goes "
                    "on there.",
                    stacklevel=3,
                )
            raise
        ready = parts.folder / f"{JOINED}{output.suffix}"
        parts.join(ready, drive.last)
    if sound and drive.source is not None:
        silent, ready = ready, parts.folder / f"{JOINED}-sounding{output.suffix}"
        if not sounds.add_sound(silent, drive.source, ready, spans=drive.spans):
            warnings.warn(
                f"The sound of {drive.source} cannot be decoded: {output} is silent.", stacklevel=3
            )
            ready = silent
    provenance.sign(ready)
    with writing(output):
        os.replace(ready, output)
    parts.remove()


def _frames(drive, provenance, side_by_side, batch_size, progress, start):
    """The frames to be written, from a number on."""
    if start >= drive.count:
        return
    compositor = drive.compositor
    warm_up = 0 if compositor is None else compositor.warm_up
    first = max(0, start - batch_size * math.ceil(warm_up / batch_size))
    under = None
    if compositor is not None:
        under = ahead(compositor.source_frames(drive.numbers[first:]))
    beside = drive.beside(start) if side_by_side else None
    bar = progress_bar(drive.count, "driving", show=progress, initial=start)
    try:
        with bar:
            for place, image in enumerate(
                itertools.chain.from_iterable(drive.images(first)), first
            ):
                if compositor is not None:
                    number, frame = drive.numbers[place], next(under)
                    if place < start:
                        compositor.see(number, image, frame)
                        continue
                    image = compositor.frame(number, image, frame)
                if drive.light is not None and drive.light[place] < 1:
                    image = _dimmed(image, drive.light[place])
                if beside is not None:
                    image = together([_as_high(next(beside), len(image)), image])
                yield provenance.frame(image)
                bar.update()
    finally:
        for reader in (under, beside):
            if reader is not None:
                reader.close()


def _dimmed(image, light):
    """A darker picture, or one that shows more of what it is put before."""
    factors = np.full(image.shape[-1], light)
    if len(factors) == 4:
        factors[:3] = 1
    return np.rint(image * factors).astype("uint8")


def _as_high(frame, height):
    """A frame made as high as another."""
    if len(frame) == height:
        return frame
    import cv2

    width = round(frame.shape[1] * height / len(frame))
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
