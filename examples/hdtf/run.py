"""HDTF from its annotation files to puppets and a table of scores.

git clone https://github.com/MRzzm/HDTF
python examples/hdtf/run.py --annotations HDTF/HDTF_dataset --videos my_videos -o hdtf --only Radio11

A clip that fails is listed with the reason and the others go on; the same command again does only
what is not done yet. Results: OUT/videos (fetched), OUT/previews (look at these first),
OUT/portraits, OUT/runs and OUT/summary.json.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import keras

from keras_vpgc import VPGCError
from keras_vpgc.cli.train import split_settings
from keras_vpgc.data import hdtf, prepare
from keras_vpgc.data.crop import Crop
from keras_vpgc.evaluation.run import evaluate_run
from keras_vpgc.training.recipes import train_puppet

STAGES = ("fetch", "cut", "prepare", "train", "evaluate")


def main(arguments=None) -> int:
    options = parse(arguments)
    output = Path(options.output)
    recipe, network = split_settings(options.set)
    clips = hdtf.read_annotations(options.annotations, options.subset)
    clips = hdtf.select(clips, options.only)
    output.mkdir(parents=True, exist_ok=True)
    summary = read_summary(output)

    failures = {}
    for number, clip in enumerate(clips, 1):
        print(f"[{number}/{len(clips)}] {clip.name}", flush=True)
        state = summary["clips"].setdefault(clip.name, {})
        state.pop("failed", None)
        try:
            for stage in STAGES:
                if stage in options.stages:
                    run_stage(stage, clip, state, options, output, recipe, network)
                    write_summary(output, summary)
        except Exception as error:  # one clip must not stop the others
            known = isinstance(error, VPGCError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            state["failed"] = {"stage": stage, "reason": reason}
            failures[clip.name] = f"{clip.name}, {stage}: {reason}"
            print(f"  failed: {reason}", flush=True)
            write_summary(output, summary)

    print(f"\n{table(summary, clips)}")
    if failures:
        print(f"\n{len(failures)} of {len(clips)} clips failed:")
        print("\n".join(f"- {line}" for line in failures.values()))
    return 1 if failures else 0


def run_stage(stage, clip, state, options, output, recipe, network):
    """Do one stage of one clip, unless its result is there and was made with these settings."""
    portrait, run = output / "portraits" / clip.name, output / "runs" / clip.name
    framing = {"crop": options.crop, "size": options.size, "test_frames": options.test_frames}
    training = {"preset": options.preset, "recipe": recipe, "network": network}
    result, settings = {
        "fetch": (None, {}),
        "cut": (output / "previews" / f"{clip.name}.png", {"crop": options.crop}),
        "prepare": (portrait / "portrait.json", framing),
        "train": (run / "puppet.keras", {**framing, **training}),
        "evaluate": (run / "evaluation" / "metrics.json", {**framing, **training}),
    }[stage]
    done = state.get(stage, {})
    if result and result.exists() and done.get("settings") == settings:
        return
    print(f"  {stage}", flush=True)
    state.pop(stage, None)
    fact = {}
    if stage == "fetch":
        fact["source"], fact["whole"] = fetch(clip, options, output)
    elif stage == "cut":
        fact["cut"] = cut(clip, options, output, result)
    elif stage == "prepare":
        place = needed(state, "cut", clip)["cut"]
        made = prepare(
            place["source"],
            portrait,
            crop=Crop(**place["crop"]) if place["crop"] else None,
            size=options.size,
            test_frames=options.test_frames,
            start=place["start"],
            end=place["end"],
        )
        fact["frames"] = len(made)
    elif stage == "train":
        keras.utils.clear_session()
        train_puppet(portrait, run, options.preset, recipe=recipe, network=network)
    else:
        scores = evaluate_run(run, portrait=portrait, landmarks=options.landmarks)
        fact["scores"] = scores["rows"]["driven"]
    state[stage] = {"settings": settings, **fact}


def fetch(clip, options, output):
    """The clip's video: one that the user has, or a download."""
    folders = [Path(f) for f in (options.videos, output / "videos") if f]
    found = hdtf.find_video(clip, folders)
    if found is None:
        found = hdtf.fetch(clip, output / "videos", options.resolution), True
    return str(found[0].resolve()), found[1]


def cut(clip, options, output, picture):
    """Times and crop of the clip in its video, checked, and a picture of them."""
    import cv2

    source, whole = fetch(clip, options, output)
    place = hdtf.locate(clip, source, whole, tracked=options.crop == "tracked")
    image = hdtf.preview(place)
    picture.parent.mkdir(exist_ok=True)
    partial = picture.with_name(f".{picture.name}")
    cv2.imwrite(str(partial), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    os.replace(partial, picture)
    crop = vars(place.crop) if place.crop else None
    return {"source": source, "start": place.start, "end": place.end, "crop": crop}


def needed(state, stage, clip):
    if stage not in state:
        raise VPGCError(f"{clip.name} has not come through the stage {stage} yet: run it first.")
    return state[stage]


def read_summary(output):
    file = output / "summary.json"
    return json.loads(file.read_text()) if file.exists() else {"clips": {}}


def write_summary(output, summary):
    partial = output / ".summary.json"
    partial.write_text(json.dumps(summary, indent=1))
    os.replace(partial, output / "summary.json")


def table(summary, clips):
    """Markdown: what came out of each clip."""
    lines = ["| clip | frames | PSNR | SSIM | F-LMD |", "|---|---|---|---|---|"]
    for clip in clips:
        state = summary["clips"][clip.name]
        scores = state.get("evaluate", {}).get("scores", {})
        cells = [f"{scores[k]:.3f}" if k in scores else "" for k in ("psnr", "ssim", "f_lmd")]
        cells = [str(state.get("prepare", {}).get("frames", "")), *cells]
        if "failed" in state:
            cells[-1] += f" failed: {state['failed']['stage']}"
        lines.append(f"| {clip.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--annotations", required=True, help="HDTF_dataset of the corpus' repository")
    add("--videos", help="folder of videos or cut clips that you have; never written to")
    add("-o", "--output", required=True, help="where everything goes")
    add("--subset", help="RD, WDA or WRA alone")
    add("--only", nargs="+", default=[], metavar="NAME", help="clips (Radio11_1) or videos")
    add("--stages", nargs="+", default=list(STAGES), choices=STAGES, help="what to do")
    add("--crop", default="annotated", choices=("annotated", "tracked"), help="whose crop")
    add("--resolution", type=int, help="lines of the videos to fetch; as annotated without it")
    add("--size", type=int, help="side of the portraits' frames")
    add("--test-frames", type=int, help="length of the held-out end of each clip")
    add("--preset", default="vpgc_256", help="see vpgc train")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the training")
    add("--landmarks", action=argparse.BooleanOptionalAction, default=True, help="score F-LMD too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VPGCError as error:
        sys.exit(f"Error: {error}")
