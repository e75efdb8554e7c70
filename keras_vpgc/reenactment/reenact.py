"""Driving a puppet by a video."""

from pathlib import Path

from keras_vpgc import assets
from keras_vpgc.data import crop as crops
from keras_vpgc.data import video
from keras_vpgc.data.prepare import frame_range, track_clip
from keras_vpgc.errors import VPGCError
from keras_vpgc.reenactment.puppet import Puppet


def reenact(
    puppet,
    driving,
    output,
    *,
    retargeting: str = "auto",
    start: float | None = None,
    end: float | None = None,
    side_by_side: bool = False,
    batch_size: int = 8,
    overwrite: bool = False,
    tracker_model=None,
    progress: bool = True,
) -> Path:
    """Render a puppet in the poses of a driving video.

    Args:
        puppet: A `Puppet`, a `puppet.keras` or a run folder.
        driving: The driving video.
        output: The video to write, such as `out.mp4`.
        retargeting: See `Puppet.landmarks_of`.
        start: Where to begin, in seconds of the driving video.
        end: Where to stop, in seconds of the driving video.
        side_by_side: Show the driving face beside the result?
        batch_size: Frames computed at once.
        overwrite: Replace an existing output?
        tracker_model: Path of the face landmarker's model.
        progress: Show progress bars?

    Returns:
        Path of the output.

    Raises:
        VPGCError: for a driving file that is no video or shows no face, or an output that exists.

    Example:

    ```python
    reenact("runs/me", "friend.mp4", "me_like_friend.mp4")
    ```
    """
    from tqdm.auto import tqdm

    if not isinstance(puppet, Puppet):
        puppet = Puppet.load(puppet)
    info = video.probe(driving)
    if Path(output).exists() and not overwrite:
        raise VPGCError(f"{output} exists: choose another name, or --overwrite.")
    track = track_clip(
        driving, start=start, end=end, tracker_model=tracker_model, progress=progress
    )
    landmarks = puppet.landmarks_of(track, assets.sha256(driving), retargeting)
    if side_by_side:
        if puppet.metadata["source_sha256"] == assets.sha256(driving):
            crop = crops.Crop(**puppet.metadata["crop"])
        else:
            crop = crops.choose_crop(track.points, track.valid, info.width, info.height)
        source = video.read_frames(driving, *frame_range(driving, start, end))
    with (
        video.VideoWriter(output, info.frame_rate, overwrite=overwrite) as writer,
        tqdm(total=len(landmarks), desc="driving", unit="frame", disable=not progress) as bar,
    ):
        for frames in puppet.stream(landmarks, batch_size, bar.update):
            for frame in frames:
                if side_by_side:
                    from keras_vpgc.visualization import side_by_side as beside

                    frame = beside([crops.apply(next(source), crop, puppet.size), frame])
                writer.write(frame)
    return Path(output)
