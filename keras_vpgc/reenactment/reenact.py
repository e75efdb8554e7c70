"""Driving a puppet by a video."""

from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import video
from keras_vpgc.data.prepare import frame_range, track_clip
from keras_vpgc.errors import VPGCError
from keras_vpgc.reenactment.contours import drive_contours, read_contours
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.visualization import side_by_side as beside


def reenact(
    puppet,
    driving,
    output,
    *,
    retargeting: str = "auto",
    neutral: float | None = None,
    motion: float = 1.0,
    guard: str = "warn",
    start: float | None = None,
    end: float | None = None,
    side_by_side: bool = False,
    batch_size: int = 8,
    precision: str | None = None,
    overwrite: bool = False,
    tracker_model=None,
    progress: bool = True,
) -> Path:
    """Render a puppet in the poses of a driving video.

    Args:
        puppet: A `Puppet`, a `puppet.keras` or a run folder.
        driving: The driving video, or a folder of contour images (see
            `keras_vpgc.reenactment.contours.read_contours`), a frame each at the puppet's rate.
        output: The video to write, such as `out.mp4`.
        retargeting: See `Puppet.landmarks_of`.
        neutral: Second of the driving video at which the face is at rest; default: chosen, see
            `keras_vpgc.data.retarget.neutral_frame`.
        motion: Strength of the head motion, 0 (still) to 1 (as driven).
        guard: Where the driver leaves what the puppet has seen: `"warn"`, `"clamp"` or `"off"`.
        start: Where to begin, in seconds of the driving video.
        end: Where to stop, in seconds of the driving video.
        side_by_side: Show the driving face beside the result?
        batch_size: Frames computed at once.
        precision: That of a puppet given by its path, see `Puppet`; default: `"auto"`.
        overwrite: Replace an existing output?
        tracker_model: Path of the face landmarker's model.
        progress: Show progress bars?

    Returns:
        Path of the output.

    Raises:
        VPGCError: for a driving file that is no video or shows no face, a folder of contours that
            cannot be read or is to be retargeted, an output that exists or cannot be written, or
            settings that do not fit.

    Example:

    ```python
    reenact("runs/me", "friend.mp4", "me_like_friend.mp4")
    ```
    """
    from tqdm.auto import tqdm

    # Before the minutes that tracking takes.
    video.check_target(output, overwrite)
    if Path(output).exists() and Path(driving).exists() and Path(output).samefile(driving):
        raise VPGCError(f"{output} is the driving video itself: choose another output.")
    if not isinstance(puppet, Puppet):
        puppet = Puppet.load(puppet, precision or "auto")
    elif precision is not None:
        raise VPGCError(
            "A Puppet has its precision already: give the path of its file or run, or leave "
            "precision out."
        )
    if Path(driving).is_dir():
        if retargeting not in ("auto", "none") or neutral is not None or motion != 1:
            raise VPGCError(
                f"{driving} is a folder of contour images, which cannot be retargeted: leave "
                "retargeting, neutral and motion out."
            )
        return _reenact_contours(
            puppet, driving, output, start, end, side_by_side, batch_size, overwrite, progress
        )
    info = video.probe(driving)
    landmarks, track, sha256 = driving_landmarks(
        puppet,
        driving,
        retargeting=retargeting,
        neutral=neutral,
        motion=motion,
        guard=guard,
        start=start,
        end=end,
        tracker_model=tracker_model,
        progress=progress,
    )
    if side_by_side:
        if puppet.metadata["source_sha256"] == sha256:
            crop = crops.Crop(**puppet.metadata["crop"])
        else:
            crop = crops.choose_crop(track.points, track.valid, info.width, info.height)
        source = video.read_frames(driving, *frame_range(driving, start, end))
    with (
        video.VideoWriter(output, info.frame_rate, overwrite=overwrite) as writer,
        tqdm(total=len(landmarks), desc="driving", unit="frame", disable=not progress) as bar,
    ):
        for frames in puppet.batches(landmarks, batch_size, bar.update):
            for frame in frames:
                if side_by_side:
                    frame = beside([crops.apply(next(source), crop, puppet.size), frame])
                writer.write(frame)
    return Path(output)


def driving_landmarks(
    puppet: Puppet,
    driving,
    *,
    retargeting: str = "auto",
    neutral: float | None = None,
    motion: float = 1.0,
    guard: str = "warn",
    start: float | None = None,
    end: float | None = None,
    workers: int | None = None,
    tracker_model=None,
    progress: bool = True,
):
    """Landmarks by which a video drives a puppet.

    Args:
        puppet: A `Puppet`.
        driving: The driving video.
        retargeting, neutral, motion, guard, start, end, tracker_model, progress: See `reenact`.
        workers: Processes that track; default: one a core.

    Returns:
        Landmarks float32 `(n, 68, 2)` (78 with irises) in the puppet's crop, one entry for each
        frame of `keras_vpgc.data.prepare.frame_range(driving, start, end)`; the clip's `Track`; and
        the file's SHA-256.

    Raises:
        VPGCError: see `reenact`.

    Example:

    ```python
    landmarks, track, _ = driving_landmarks(puppet, "friend.mp4", retargeting="relative")
    frames = puppet.drive(landmarks)
    ```
    """
    info = video.probe(driving)
    rest = None
    if neutral is not None:
        first, last = frame_range(driving, start, end)
        rest = int(np.searchsorted(video.frame_times(driving), neutral, "right")) - 1 - first
        if not 0 <= rest < last - first:
            raise VPGCError(
                f"Second {neutral:g} is not in the part of {driving} that drives: choose another "
                "--neutral."
            )
    track = track_clip(
        driving,
        start=start,
        end=end,
        workers=workers,
        tracker_model=tracker_model,
        progress=progress,
    )
    sha256 = assets.sha256(driving)
    landmarks = puppet.landmarks_of(
        track,
        (info.width, info.height),
        sha256,
        retargeting,
        neutral=rest,
        motion=motion,
        guard=guard,
        tracker_model=tracker_model,
    )
    return landmarks, track, sha256


def _reenact_contours(
    puppet, folder, output, start, end, side_by_side, batch_size, overwrite, progress
):
    from tqdm.auto import tqdm

    rate = puppet.metadata["frame_rate"]
    contours = read_contours(folder, puppet.size, puppet.model.heatmap.line_width)
    first = round((start or 0) * rate)
    chosen = contours[first : None if end is None else round(end * rate)]
    if not len(chosen):
        raise VPGCError(
            f"{folder} holds {len(contours)} contour images, {len(contours) / rate:.2f} s at the "
            "puppet's rate, none of them in the part asked for: choose another --start or --end."
        )
    with (
        video.VideoWriter(output, rate, overwrite=overwrite) as writer,
        tqdm(total=len(chosen), desc="driving", unit="frame", disable=not progress) as bar,
    ):
        shown = iter(chosen)
        for frames in drive_contours(puppet, chosen, batch_size, bar.update):
            for frame in frames:
                if side_by_side:
                    frame = beside([np.stack([next(shown)] * 3, axis=-1), frame])
                writer.write(frame)
    return Path(output)
