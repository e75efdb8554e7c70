"""Several systems in one table."""

from keras_vpgc.errors import VPGCError, writing
from keras_vpgc.evaluation.pair import (
    FLOOR,
    check_output,
    region_title,
    score_videos,
    write,
)
from keras_vpgc.evaluation.protocol import PAPER_COLUMNS, interval_table, jsonable, table


def compare(systems: dict, truth, output=None, **options) -> dict:
    """Score the videos of several systems against one truth, all by one protocol.

    All are scored on the same frames, in the same square of the face, and against the same floor.

    Args:
        systems: Name -> predicted video file.
        truth: The true video file.
        output: Folder for `comparison.json`, `comparison.md` and per-frame `scores.npz`; `None`
            writes nothing.
        **options: Those of `keras_vpgc.evaluation.pair.score_videos`.

    Returns:
        What `comparison.json` holds: `scores` (region -> name -> what `summary` returns), `floor`
        (region -> the same for the truth shifted by one frame), `frames`, `frames_without_face`,
        `notes`, `protocol`, and `table`: Markdown in the layout of the paper's Tab. 1 (PSNR, SSIM,
        LPIPS, F-LMD), one row a system, then all scores with their intervals.

    Raises:
        VPGCError: without a system, and see `score_videos`.

    Example:

    ```python
    print(compare({"ours": "ours.mp4", "theirs": "theirs.mp4"}, "truth.mp4")["table"])
    ```
    """
    if not systems:
        raise VPGCError("There is no system to compare: give NAME=VIDEO for each.")
    folder = check_output(output)
    result = score_videos(systems, truth, **options)
    parts = []
    for region, rows in result["scores"].items():
        shown = {**{name: rows[name] for name in systems}, "floor": rows[FLOOR]}
        parts += [region_title(region, result["protocol"]), table(shown, PAPER_COLUMNS)]
        level = 100 * result["protocol"]["interval"]["level"]
        parts += [f"With {level:g}% intervals:", interval_table(shown)]
    found = jsonable(
        {
            "frames": result["frames"],
            "scores": {
                region: {name: rows[name] for name in systems}
                for region, rows in result["scores"].items()
            },
            "floor": {region: rows[FLOOR] for region, rows in result["scores"].items()},
            "frames_without_face": result["frames_without_face"],
            "notes": result["notes"],
            "protocol": result["protocol"],
            "table": "\n\n".join(parts),
        }
    )
    if folder is not None:
        with writing(folder):
            write(folder, "comparison", found, result["per_frame"])
    return found
