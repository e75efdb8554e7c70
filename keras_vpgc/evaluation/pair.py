"""One system's video against the true one."""

from keras_vpgc.evaluation.clips import FLOOR
from keras_vpgc.evaluation.eyes_and_mouth import agreement_table
from keras_vpgc.evaluation.output import FLOOR_TITLE, check_output, region_title, titled, write
from keras_vpgc.evaluation.protocol import interval_table, jsonable
from keras_vpgc.evaluation.videos import score_videos

NAME = "prediction"


def evaluate_pair(prediction, truth, output=None, **options) -> dict:
    """Score a predicted video against the true one, whatever system made it.

    Frames are read one at a time: memory does not grow with the length, but for some numbers a
    frame. Videos of one rate are compared frame by frame. With `align`, those of other rates are by
    the nearest frame in time of the truth's frames, and those of another size are scaled to the
    truth's. The region `face` is a square chosen once for the clip by the landmarks of the truth,
    as `prepare` chooses it, cut out of both videos; `full` is the whole picture at the truth's
    size.

    Args:
        prediction: The predicted video file.
        truth: The true video file.
        output: Folder for `evaluation.json`, `evaluation.md`, per-frame `scores.npz`,
            `side_by_side.mp4`, `eyes_and_mouth.png` (with landmarks), and `report.html`, which
            shows all of it; `None` writes nothing.
        **options: Those of `keras_vpgc.evaluation.videos.score_videos`.

    Returns:
        What `evaluation.json` holds; PSNR of identical videos is the text `"inf"`, since JSON has
        no infinity:

        - `scores`: for each region what `summary` returns: means, `intervals`, `left_out`.
        - `floor`: the same for the truth shifted by one frame as the prediction.
        - `eyes_and_mouth`: `{"prediction": ..., "floor": ...}`: whether they open and close with
          the truth's, see `keras_vpgc.evaluation.eyes_and_mouth.eyes_and_mouth`; empty without
          landmarks.
        - `frames_without_face`, `frames_not_decoded`: `{"truth": ..., "prediction": ...}`.
        - `failures`: what went wrong on the way, in words; scores up to there are kept.
        - `notes`: sentences on what was resized, aligned or left out.
        - `protocol`: everything that the numbers depend on.
        - `table`: the same as Markdown.

    Raises:
        VPGCError: see `score_videos`; or if matplotlib is missing or the folder cannot be written.

    Example:

    ```python
    result = evaluate_pair("driven.mp4", "truth.mp4", "scores/driven")
    result["scores"]["face"]["lpips"], result["scores"]["face"]["intervals"]["lpips"]
    ```
    """
    folder = check_output(output)
    result = score_videos({NAME: prediction}, truth, **options)
    scores = result["scores"]
    table = "\n\n".join(
        f"{region_title(region, result['protocol'])}\n\n"
        + interval_table({NAME: rows[NAME], FLOOR_TITLE: rows[FLOOR]})
        for region, rows in scores.items()
    )
    if text := agreement_table(titled(result["eyes_and_mouth"])):
        table += f"\n\n{text}"
    found = jsonable(
        {
            "frames": result["frames"],
            "scores": {region: rows[NAME] for region, rows in scores.items()},
            "floor": {region: rows[FLOOR] for region, rows in scores.items()},
            "eyes_and_mouth": result["eyes_and_mouth"],
            "frames_without_face": result["frames_without_face"],
            "frames_not_decoded": result["frames_not_decoded"],
            "failures": result["failures"],
            "notes": result["notes"],
            "protocol": result["protocol"],
            "table": table,
        }
    )
    if folder is not None:
        write(folder, "evaluation", found, result, options.get("progress", True))
    return found
