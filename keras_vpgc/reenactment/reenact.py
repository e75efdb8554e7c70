"""Driving a puppet by a video."""

from pathlib import Path

import numpy as np

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import video
from keras_vpgc.data.prepare import track_clip
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
    start: int = 0,
    stop: int | None = None,
    side_by_side: bool = False,
    batch_size: int = 8,
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
        start: First frame of the driving video.
        stop: Frame before which to stop.
        side_by_side: Show the driving face beside the result?
        batch_size: Frames computed at once.
        overwrite: Replace an existing output?
        tracker_model: Path of the face landmarker's model.
        progress: Show progress bars?

    Returns:
        Path of the output.

    Raises:
        VPGCError: for a driving file that is no video or shows no face, a folder of contours that
            cannot be read or is to be retargeted, or an output that exists.

    Example:

    ```python
    reenact("runs/me", "friend.mp4", "me_like_friend.mp4")
    ```
    """
    from tqdm.auto import tqdm

    if not isinstance(puppet, Puppet):
        puppet = Puppet.load(puppet)
    if Path(output).exists() and not overwrite:
        raise VPGCError(f"{output} exists: choose another name, or --overwrite.")
    if Path(driving).is_dir():
        if retargeting not in ("auto", "none"):
            raise VPGCError(
                f"{driving} is a folder of contour images, which cannot be retargeted "
                f"({retargeting!r}): leave the retargeting out."
            )
        contours = read_contours(driving, puppet.size, puppet.model.heatmap.line_width)
        contours = contours[start:stop]
        if not len(contours):
            raise VPGCError(f"{driving} holds no contour image from frame {start} on: lower start.")
        with (
            video.VideoWriter(output, puppet.metadata["frame_rate"], overwrite=overwrite) as writer,
            tqdm(total=len(contours), desc="driving", unit="frame", disable=not progress) as bar,
        ):
            shown = iter(contours)
            for frames in drive_contours(puppet, contours, batch_size, bar.update):
                for frame in frames:
                    if side_by_side:
                        frame = beside([np.stack([next(shown)] * 3, axis=-1), frame])
                    writer.write(frame)
        return Path(output)
    info = video.probe(driving)
    track = track_clip(
        driving, start=start, stop=stop, tracker_model=tracker_model, progress=progress
    )
    landmarks = puppet.landmarks_of(track, assets.sha256(driving), retargeting)
    if side_by_side:
        if puppet.metadata["source_sha256"] == assets.sha256(driving):
            crop = crops.Crop(**puppet.metadata["crop"])
        else:
            crop = crops.choose_crop(track.points, track.valid, info.width, info.height)
        source = video.read_frames(driving, start, stop)
    with (
        video.VideoWriter(output, info.frame_rate, overwrite=overwrite) as writer,
        tqdm(total=len(landmarks), desc="driving", unit="frame", disable=not progress) as bar,
    ):
        for frames in puppet.stream(landmarks, batch_size, bar.update):
            for frame in frames:
                if side_by_side:
                    frame = beside([crops.apply(next(source), crop, puppet.size), frame])
                writer.write(frame)
    return Path(output)
