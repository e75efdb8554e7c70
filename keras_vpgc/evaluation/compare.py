"""Several systems in one table."""

from keras_vpgc.errors import VPGCError
from keras_vpgc.evaluation.clips import FLOOR
from keras_vpgc.evaluation.eyes_and_mouth import agreement_table
from keras_vpgc.evaluation.output import check_output, region_title, titled, write
from keras_vpgc.evaluation.paired import HIGHER_IS_BETTER, paired_differences, paired_table
from keras_vpgc.evaluation.protocol import PAPER_COLUMNS, interval_table, jsonable, table
from keras_vpgc.evaluation.videos import score_videos


def compare(systems: dict, truth, output=None, **options) -> dict:
    """Score the videos of several systems against one truth, all by one protocol.

    All are scored on the same frames, in the same square of the face, and against the same floor.

    Args:
        systems: Name -> predicted video file.
        truth: The true video file.
        output: Folder for `comparison.json`, `comparison.md`, per-frame `scores.npz`,
            `side_by_side.mp4`, `eyes_and_mouth.png` (with landmarks), and `report.html`, which
            shows all of it; `None` writes nothing.
        **options: Those of `keras_vpgc.evaluation.videos.score_videos`.

    Returns:
        What `comparison.json` holds: `scores` (region -> name -> what `summary` returns), `floor`
        (region -> the same for the truth shifted by one frame), `pairs` (region -> what
        `paired_differences` returns: which of two systems is better, on the same frames),
        `eyes_and_mouth` (name, and `"floor"` -> whether they open and close with the truth's, see
        `keras_vpgc.evaluation.eyes_and_mouth.eyes_and_mouth`), `frames`, `frames_without_face`,
        `frames_not_decoded`, `failures` (name -> what went wrong with it; the others' scores are
        whole), `notes`, `protocol`, and `table`: Markdown in the
        layout of the paper's Tab. 1 (PSNR, SSIM, LPIPS, F-LMD), one row a system, then all scores
        with their intervals and the differences of pairs.

    Raises:
        VPGCError: without a system, and see `score_videos`; or if matplotlib is missing or the
            folder cannot be written.

    Example:

    ```python
    print(compare({"ours": "ours.mp4", "theirs": "theirs.mp4"}, "truth.mp4")["table"])
    ```
    """
    if not systems:
        raise VPGCError("There is no system to compare: give NAME=VIDEO for each.")
    folder = check_output(output)
    result = score_videos(systems, truth, **options)
    protocol = result["protocol"]
    interval = protocol["interval"]
    parts = []
    pairs: dict[str, list] = {}
    for region, rows in result["scores"].items():
        per_frame = {
            name: {
                key: result["per_frame"][f"{region}/{name}/{key}"]
                for key in HIGHER_IS_BETTER
                if f"{region}/{name}/{key}" in result["per_frame"]
            }
            for name in systems
        }
        level, seed = interval["level"], interval["seed"]
        pairs[region] = paired_differences(per_frame, protocol["frame_rate"], level, seed)
        shown = {**{name: rows[name] for name in systems}, "floor": rows[FLOOR]}
        parts += [region_title(region, protocol), table(shown, PAPER_COLUMNS)]
        parts += [f"With {100 * level:g}% intervals:", interval_table(shown)]
        if text := paired_table(pairs[region]):
            parts += ["System against system, on the frames that both have:", text]
    if text := agreement_table(titled(result["eyes_and_mouth"])):
        parts.append(text)
    result["pairs"] = pairs
    found = jsonable(
        {
            "frames": result["frames"],
            "scores": {
                region: {name: rows[name] for name in systems}
                for region, rows in result["scores"].items()
            },
            "floor": {region: rows[FLOOR] for region, rows in result["scores"].items()},
            "pairs": pairs,
            "eyes_and_mouth": result["eyes_and_mouth"],
            "frames_without_face": result["frames_without_face"],
            "frames_not_decoded": result["frames_not_decoded"],
            "failures": result["failures"],
            "notes": result["notes"],
            "protocol": protocol,
            "table": "\n\n".join(parts),
        }
    )
    if folder is not None:
        write(folder, "comparison", found, result, options.get("progress", True))
    return found
