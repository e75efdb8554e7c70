"""HDTF from its annotation files to puppets and a table of scores.

git clone https://github.com/MRzzm/HDTF
python examples/hdtf/run.py --annotations HDTF/HDTF_dataset --videos mine -o hdtf --only Radio11

A clip that fails is listed with the reason and the others go on; the same command again does only
what is not done yet. Results: OUT/videos (fetched), OUT/previews (look at these first),
OUT/portraits, OUT/runs and OUT/summary.json.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import cv2
import keras

from keras_vpgc import VPGCError
from keras_vpgc.cli.train import split_settings
from keras_vpgc.data import hdtf, prepare
from keras_vpgc.data.crop import Crop
from keras_vpgc.evaluation.run import evaluate_run
from keras_vpgc.training.recipes import train_puppet

SCORES = ("psnr", "ssim", "landmark_distance")


def main(arguments=None) -> int:
    options = parse(arguments)
    output = Path(options.output)
    options.recipe, options.network = split_settings(options.set)
    clips = hdtf.read_annotations(options.annotations, options.subset)
    clips = hdtf.select(clips, options.only)
    output.mkdir(parents=True, exist_ok=True)
    summary = read_summary(output)

    failures = []
    for number, clip in enumerate(clips, 1):
        print(f"[{number}/{len(clips)}] {clip.name}", flush=True)
        state = summary["clips"].setdefault(clip.name, {})
        state.pop("failed", None)
        for stage in [s for s in STAGES if s in options.stages]:
            try:
                run_stage(stage, clip, state, options, output)
            except Exception as error:  # one clip must not stop the others
                known = isinstance(error, VPGCError)
                reason = str(error) if known else f"{type(error).__name__}: {error}"
                state["failed"] = {"stage": stage, "reason": reason}
                failures.append(f"- {clip.name}, {stage}: {reason}")
                print(f"  failed: {reason}", flush=True)
                break
            finally:
                write_summary(output, summary)

    print(f"\n{table(summary, clips)}")
    if failures:
        print(f"\n{len(failures)} of {len(clips)} clips failed:")
        print("\n".join(failures))
    return 1 if failures else 0


def run_stage(stage, clip, state, options, output):
    """Do a stage of a clip, unless its result is there and was made with these settings."""
    framing = {name: getattr(options, name) for name in ("crop", "size", "rate", "test_frames")}
    training = {"preset": options.preset, "recipe": options.recipe, "network": options.network}
    run = output / "runs" / clip.name
    results = {
        "fetch": (Path(state.get("fetch", {}).get("source", "")), {}),
        "cut": (output / "previews" / f"{clip.name}.png", {"crop": options.crop}),
        "prepare": (output / "portraits" / clip.name / "portrait.json", framing),
        "train": (run / "puppet.keras", framing | training),
        "evaluate": (
            run / "evaluation" / "metrics.json",
            framing | training | {"landmarks": options.landmarks},
        ),
    }

    def done(name):
        file, settings = results[name]
        return file.is_file() and state.get(name, {}).get("settings") == settings

    # A prepared clip needs its video no more: it may be deleted.
    if done(stage) or (stage in ("fetch", "cut") and done("prepare")):
        return
    print(f"  {stage}", flush=True)
    state.pop(stage, None)
    file, settings = results[stage]
    state[stage] = {**STAGES[stage](clip, state, options, output, file), "settings": settings}


def fetch(clip, state, options, output, file):
    """The video: one that the user has, or a download."""
    folders = [Path(folder) for folder in (options.videos, output / "videos") if folder]
    found = hdtf.find_video(clip, folders)
    if found is None:
        found = hdtf.fetch(clip, output / "videos", options.resolution), True
    return {"source": str(found[0].resolve()), "whole": found[1]}


def cut(clip, state, options, output, file):
    """Times and crop of the clip in its video, checked, and a picture of them."""
    video = needed(state, "fetch", clip)
    place = hdtf.locate(clip, video["source"], video["whole"], tracked=options.crop == "tracked")
    picture = cv2.cvtColor(hdtf.preview(place), cv2.COLOR_RGB2BGR)
    file.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(file.with_name(f".{file.name}")), picture)
    os.replace(file.with_name(f".{file.name}"), file)
    return {
        "start": place.start,
        "end": place.end,
        "cropped": vars(place.crop) if place.crop else None,
    }


def make_portrait(clip, state, options, output, file):
    place = needed(state, "cut", clip)
    portrait = prepare(
        needed(state, "fetch", clip)["source"],
        file.parent,
        crop=Crop(**place["cropped"]) if place["cropped"] else None,
        size=options.size,
        rate=options.rate,
        test_frames=options.test_frames,
        start=place["start"],
        end=place["end"],
    )
    return {"frames": len(portrait)}


def train(clip, state, options, output, file):
    needed(state, "prepare", clip)
    keras.utils.clear_session()
    train_puppet(
        output / "portraits" / clip.name,
        file.parent,
        options.preset,
        recipe=options.recipe,
        network=options.network,
    )
    return {}


def evaluate(clip, state, options, output, file):
    needed(state, "train", clip)
    scores = evaluate_run(
        output / "runs" / clip.name,
        portrait=output / "portraits" / clip.name,
        landmarks=options.landmarks,
    )
    return {"scores": scores["rows"]["driven"]}


STAGES = {
    "fetch": fetch,
    "cut": cut,
    "prepare": make_portrait,
    "train": train,
    "evaluate": evaluate,
}


def needed(state, stage, clip):
    if stage not in state:
        raise VPGCError(f"{clip.name} has not come through the stage {stage}: run that one too.")
    return state[stage]


def read_summary(output):
    file = output / "summary.json"
    try:
        return json.loads(file.read_text()) if file.exists() else {"clips": {}}
    except ValueError:
        raise VPGCError(f"{file} is damaged: delete it; what is done is found again.") from None


def write_summary(output, summary):
    partial = output / ".summary.json"
    partial.write_text(json.dumps(summary, indent=1))
    os.replace(partial, output / "summary.json")


def table(summary, clips):
    """Markdown: what came out of each clip."""
    lines = ["| clip | frames | PSNR | SSIM | F-LMD | |", "|---|---|---|---|---|---|"]
    for clip in clips:
        state = summary["clips"][clip.name]
        scores = state.get("evaluate", {}).get("scores", {})
        cells = [clip.name, str(state.get("prepare", {}).get("frames", ""))]
        cells += [f"{scores[k]:.3f}" if k in scores else "" for k in SCORES]
        cells.append(f"failed: {state['failed']['stage']}" if "failed" in state else "")
        lines.append(f"| {' | '.join(cells)} |")
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
    add("--rate", type=float, help="frames a second of the portraits; the video's without it")
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
