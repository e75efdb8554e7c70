"""Landmarks that drive a puppet, as a file."""

from pathlib import Path

import numpy as np

from keras_vpgc.data import video
from keras_vpgc.data.prepare import frame_range
from keras_vpgc.errors import VPGCError, check_writable, writing
from keras_vpgc.reenactment.driving import driving_landmarks, hold, say_missing
from keras_vpgc.reenactment.puppet import Puppet


def write_landmarks(puppet, driving, output, *, overwrite: bool = False, **settings) -> int:
    """Write the landmarks by which a video drives a puppet.

    The `.npz` holds `landmarks`, float32 `(n, points, 2)` in [0, 1] of the puppet's crop,
    `frame_rate`, frames a second, `landmark_set`, its name, and `times`, seconds, where the rate
    varies. Where there is no face the last pose is held.

    Args:
        puppet: A `Puppet`, a `puppet.keras` or a run folder.
        driving: The driving video.
        output: The `.npz` file.
        overwrite: Replace an existing file?
        **settings: See `driving_landmarks`.

    Returns:
        The number of frames.

    Raises:
        VPGCError: for an output that exists, is no `.npz` or cannot be written; else see
            `driving_landmarks`.

    Example:

    ```python
    write_landmarks("runs/me", "friend.mp4", "drive.npz")
    ```
    """
    output = Path(output)
    if output.suffix != ".npz":
        raise VPGCError(
            f"{output} is no name for landmarks: let it end in .npz, such as "
            f"{output.with_suffix('.npz')}."
        )
    if output.exists() and not overwrite:
        raise VPGCError(f"{output} exists: choose another name, or --overwrite.")
    # Before the minutes that tracking takes.
    check_writable(output)
    if not isinstance(puppet, Puppet):
        puppet = Puppet.load(puppet)
    info = video.probe(driving)
    landmarks, track, _ = driving_landmarks(puppet, driving, **settings)
    first, _ = frame_range(driving, settings.get("start"), settings.get("end"))
    times = video.frame_times(driving)[first : first + len(landmarks)]
    if not track.valid.all():
        say_missing(driving, track.valid, times, "hold")
        landmarks = hold(landmarks, track.valid, times)
    more = {"times": times - times[0]} if info.variable_rate else {}
    partial = output.with_name(f".{output.name}")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                np.savez(
                    file,
                    landmarks=landmarks.astype("float32"),
                    frame_rate=np.float64(info.frame_rate),
                    landmark_set=puppet.landmark_set,
                    **more,
                )
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    return len(landmarks)
