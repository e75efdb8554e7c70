"""The studio's page: Gradio's components around `Studio`."""

import contextlib
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from keras_vpgc.errors import VPGCError
from keras_vpgc.models import presets
from keras_vpgc.studio import progress
from keras_vpgc.studio.actions import (
    BACKGROUNDS,
    GUARDS,
    RETARGETING,
    Studio,
    folded,
    pictures,
)
from keras_vpgc.version import __version__

SECONDS = 2.0
LOSSES, QUALITIES = ("loss", "loss, held out"), ("PSNR", "PSNR, held out")
JOB_COLUMNS = ["#", "job", "state", "time", "how it ended"]
SCORES = {
    "run": "run",
    "preset": "preset",
    "steps": "steps",
    "trained": "trained",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "landmark_distance": "F-LMD",
}
STYLE = """
.status { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center; padding: 10px 14px;
  border: 1px solid var(--border-color-primary); border-left: 5px solid #8a919b; border-radius: 8px;
  overflow-wrap: anywhere; }
.status.running { border-left-color: #1f6fb2; } .status.done { border-left-color: #2c8545; }
.status.failed { border-left-color: #b3261e; } .status.stopped { border-left-color: #9a6b00; }
.status progress { flex: 1 1 120px; min-width: 100px; } .status .more { flex: 1 1 100%;
  opacity: 0.8; font-size: 0.9em; }
.stage { display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: center; margin: 4px 0; }
.stage span:first-child { min-width: 9em; } .stage progress { flex: 1 1 120px; }
progress { accent-color: #1f6fb2; height: 12px; }
.report { width: 100%; height: 70vh; border: 1px solid var(--border-color-primary);
  border-radius: 8px; background: white; }
.pictures figure { margin: 0 0 14px; } .pictures img { width: 100%; max-width: 1100px;
  border-radius: 6px; } .pictures figcaption { opacity: 0.8; }
.gradio-container { max-width: 1200px !important; }
.log textarea { font-family: ui-monospace, monospace; font-size: 12px; }
@media (max-width: 500px) { .gradio-container { padding: 8px !important; }
  .report { height: 60vh; } }
"""


def theme():
    """Gradio's theme with the machine's own fonts: nothing is fetched."""
    text = ["system-ui", "sans-serif"]
    return gr.themes.Default(font=text, font_mono=["ui-monospace", "monospace"])


def build(studio: Studio) -> gr.Blocks:
    """The page.

    Args:
        studio: What its buttons do.

    Returns:
        A `gradio.Blocks` that is not launched.
    """
    space, queue = studio.workspace, studio.queue
    limits = space.limits

    with gr.Blocks(title="vpgc studio", analytics_enabled=False) as page:
        gr.Markdown(
            "# vpgc studio\nLearn a puppet of a person from a video, and drive it. All stays on "
            "this machine. Make puppets of yourself, or of people who agreed."
        )
        status = gr.HTML(elem_id="status")
        seen = gr.State({})
        timer = gr.Timer(SECONDS)
        with gr.Tabs(overflow_behavior="wrap"):
            with gr.Tab("1 Video", id="video"):
                gr.Markdown(
                    f"Some minutes of one person, a still camera, even light; the head turns and "
                    f"the mouth does everything. At most {limits.megabytes} MB and "
                    f"{limits.minutes:g} minutes."
                )
                with gr.Row():
                    with gr.Column(min_width=280):
                        upload = gr.File(label="Upload a video", elem_id="upload", height=140)
                        camera = gr.Video(
                            sources=["webcam"],
                            label="Or record one",
                            include_audio=True,
                            webcam_options=_camera(),
                            elem_id="camera",
                            height=220,
                        )
                    with gr.Column(min_width=280):
                        video = gr.Dropdown(label="Video", elem_id="video", choices=[])
                        demo = gr.Button("Use the demonstration clip", size="sm", elem_id="demo")
                        shown = gr.Video(
                            label="The video", interactive=False, height=220, elem_id="shown"
                        )
                        with gr.Row():
                            start = gr.Textbox(
                                label="From", placeholder="0:05", max_length=20, min_width=100
                            )
                            end = gr.Textbox(
                                label="To", placeholder="4:30", max_length=20, min_width=100
                            )
                        prepare = gr.Button("Prepare", variant="primary", elem_id="prepare")
                portrait = gr.Dropdown(label="Portrait", elem_id="portrait", choices=[])
                coverage = gr.HTML(elem_id="coverage")
                landmarks = gr.Image(label="Landmarks", interactive=False, elem_id="landmarks")
            with gr.Tab("2 Train", id="train"):
                with gr.Row():
                    with gr.Column(min_width=280):
                        source = gr.Dropdown(label="Portrait", elem_id="source", choices=[])
                        preset = gr.Radio(
                            [(f"{n}: {presets.get(n)['description']}", n) for n in presets.names()],
                            value="vpgc_256",
                            label="Preset",
                            elem_id="preset",
                        )
                        minutes = gr.Slider(
                            0, 240, 0, step=1, label="End each stage after minutes (0: when done)"
                        )
                        estimate = gr.Markdown(elem_id="estimate")
                        train = gr.Button("Train", variant="primary", elem_id="train-button")
                    with gr.Column(min_width=280):
                        run = gr.Dropdown(label="Run", elem_id="run", choices=[])
                        stages = gr.HTML(elem_id="stages")
                        with gr.Row():
                            stop = gr.Button("Stop", variant="stop", elem_id="stop")
                            go_on = gr.Button("Go on", elem_id="go-on")
                previews = gr.HTML(elem_id="previews")
                with gr.Row():
                    losses = gr.LinePlot(
                        _points([]), x="step", y="value", color="curve", y_title="loss",
                        title="Loss of the newest stage", elem_id="losses", min_width=300,
                        height=280,
                    )  # fmt: skip
                    qualities = gr.LinePlot(
                        _points([]), x="step", y="value", color="curve", title="Quality",
                        y_title="PSNR in dB", elem_id="qualities", min_width=300, height=280,
                    )  # fmt: skip
            with gr.Tab("3 Drive", id="drive"):
                with gr.Row():
                    with gr.Column(min_width=280):
                        puppet = gr.Dropdown(label="Puppet", elem_id="puppet", choices=[])
                        driving = gr.Dropdown(label="Driving video", elem_id="driving", choices=[])
                        driving_upload = gr.File(
                            label="Upload one", elem_id="driving-upload", height=140
                        )
                        driving_camera = gr.Video(
                            sources=["webcam"],
                            label="Or be the one who drives: record",
                            include_audio=True,
                            webcam_options=_camera(),
                            elem_id="driving-camera",
                            height=220,
                        )
                        with gr.Accordion("More", open=False):
                            retargeting = gr.Dropdown(
                                RETARGETING, value="auto", label="Whose shape and rest"
                            )
                            guard = gr.Dropdown(GUARDS, value="warn", label="Unseen poses")
                            motion = gr.Slider(0, 1, 1, label="Head motion")
                            background = gr.Dropdown(
                                BACKGROUNDS, value=BACKGROUNDS[0], label="Background"
                            )
                            beside = gr.Checkbox(label="Show the driving face too")
                            mark = gr.Checkbox(label='Write "synthetic" into a corner')
                        drive = gr.Button("Drive", variant="primary", elem_id="drive-button")
                        gr.Markdown(
                            "Live, by your camera, without waiting: `vpgc live` with the run's "
                            "folder, in a terminal."
                        )
                    with gr.Column(min_width=280):
                        result = gr.Dropdown(label="Result", elem_id="result", choices=[])
                        made = gr.Video(
                            label="Driven",
                            interactive=False,
                            elem_id="made",
                            buttons=["download"],
                        )
                        made_file = gr.DownloadButton(
                            "Download the video", elem_id="download-video"
                        )
            with gr.Tab("4 Runs", id="runs"):
                compared = gr.CheckboxGroup([], label="Runs to compare", elem_id="compared")
                table = gr.Dataframe(
                    headers=list(SCORES.values()),
                    interactive=False,
                    wrap=True,
                    label="Scores on unseen frames",
                    elem_id="scores",
                )
                with gr.Row():
                    first_stage = gr.LinePlot(
                        _points([]), x="step", y="value", color="run", y_title="PSNR in dB",
                        title="Codebook: PSNR, held out", min_width=300, height=280,
                    )  # fmt: skip
                    second_stage = gr.LinePlot(
                        _points([]), x="step", y="value", color="run", y_title="loss",
                        title="Driver: loss, held out", min_width=300, height=280,
                    )  # fmt: skip
                sheets = gr.HTML(elem_id="sheets")
                chosen = gr.Dropdown(label="One run", elem_id="chosen", choices=[])
                with gr.Row():
                    score = gr.Button("Score it", elem_id="score")
                    puppet_file = gr.DownloadButton("Download the puppet", elem_id="download")
                    report_file = gr.DownloadButton("Download its report", elem_id="report")
                with gr.Accordion("Model card", open=False):
                    card = gr.Markdown(elem_id="card")
            with gr.Tab("Jobs", id="jobs"):
                listed = gr.Dataframe(
                    headers=JOB_COLUMNS,
                    column_widths=["7%", "35%", "13%", "13%", "32%"],
                    interactive=False,
                    wrap=True,
                    label="Jobs run one after the other, and go on when this page is closed",
                    elem_id="jobs",
                )
                with gr.Row():
                    number = gr.Number(label="Job no.", precision=0, value=1, elem_id="number")
                    stop_job = gr.Button("Stop it", variant="stop", elem_id="stop-job")
                    again_job = gr.Button("Run it again", elem_id="again-job")
                log = gr.Textbox(
                    label="Its log", lines=10, max_lines=24, interactive=False, elem_classes="log",
                    elem_id="log",
                )  # fmt: skip
        gr.Markdown(f"keras_vpgc {__version__}; files are in `{space.folder}`.")

        # What shows one thing.
        def show_video(name):
            return _file(space, "videos", name)

        def show_portrait(name):
            picture = None
            if name:
                picture = space.path("portraits", name) / "landmarks.png"
            return studio.coverage_page(name), _there(picture)

        def shown_previews(folder):
            found = progress.previews(folder)
            inside = [x for x in found if x[0].startswith("Inside")]
            shown = pictures(x for x in reversed(found) if x not in inside)
            return shown + (folded("Inside the codebook", pictures(inside)) if inside else "")

        def show_result(name):
            file = _file(space, "driven", name)
            return file, gr.DownloadButton(value=file, interactive=file is not None)

        def show_run(name):
            if not name:
                return "", "", _points([]), _points([])
            folder = space.path("runs", name)
            points = progress.curves({name: folder})
            return (
                studio.stages(name),
                shown_previews(folder),
                # Losses of two stages have nothing in common.
                _points([x for x in points if x["stage"] == points[-1]["stage"]], LOSSES, True),
                _points(points, QUALITIES, True),
            )

        def show_chosen(name):
            if not name:
                off = gr.DownloadButton(value=None, interactive=False)
                return off, off, ""
            folder = space.path("runs", name)
            files = (folder / "puppet.keras", folder / "evaluation" / "report.html")
            buttons = [gr.DownloadButton(value=_there(x), interactive=x.exists()) for x in files]
            return *buttons, studio.model_card(name)

        def compare(names):
            found = studio.runs([x for x in names or () if x in space.names("runs")])
            rows = [[row.get(key, "") for key in SCORES] for row in progress.scores(found)]
            points = progress.curves(found)
            files = {name: x / "evaluation" / "contact_sheet.png" for name, x in found.items()}
            shown = pictures((name, file) for name, file in files.items() if file.exists())
            stages_ = {x: [p for p in points if p["stage"] == x] for x in ("Codebook", "Driver")}
            return (
                rows,
                _points(stages_["Codebook"], QUALITIES[1:]),
                _points(stages_["Driver"], LOSSES[1:]),
                shown,
            )

        def show_log(value):
            return queue.log(int(value)) if value else ""

        # What begins something.
        def take(file, wish=""):
            if file is None:
                return gr.skip(), gr.skip(), None
            try:
                with _said():
                    name = space.take(file, wish)
                gr.Info(f"{name} is here.", duration=4)
            finally:
                # What was uploaded lies in the workspace now, or was refused.
                with contextlib.suppress(OSError):
                    _forget(space, file)
            names = space.names("videos")
            return gr.Dropdown(choices=names, value=name), gr.Dropdown(choices=names), None

        def take_for_driving(file):
            main, other, empty = take(file)
            return other, main, empty

        def recorded(file):
            return take(file, "recording")

        def recorded_for_driving(file):
            main, other, empty = take(file, "recording")
            return other, main, empty

        def take_demo():
            with _said():
                name = studio.demonstration()
            names = space.names("videos")
            return gr.Dropdown(choices=names, value=name), gr.Dropdown(choices=names)

        def begin_prepare(name, first, last):
            with _said():
                made, _ = studio.prepare(name, first, last)
            gr.Info(f"{made} is prepared as soon as it is its turn.", duration=4)
            return studio.status()

        def begin_train(name, chosen_preset, most):
            with _said():
                made, job = studio.train(name, chosen_preset, most)
            gr.Info(f"{job.title} is in the queue.", duration=4)
            names = list(dict.fromkeys([made, *space.names("runs")]))
            return studio.status(), gr.Dropdown(choices=names, value=made)

        def begin_drive(*choices):
            with _said():
                _, job = studio.drive(*choices)
            gr.Info(f"{job.title} is in the queue.", duration=4)
            return studio.status()

        def begin_score(name):
            with _said():
                studio.evaluate(name)
            return studio.status()

        def stop_run(name):
            with _said():
                queue.cancel(_job_of(studio, name).number)
            return studio.status()

        def resume_run(name):
            with _said():
                queue.again(_job_of(studio, name).number)
            return studio.status()

        def stop_one(value):
            with _said():
                queue.cancel(value)
            return studio.status()

        def again(value):
            with _said():
                queue.again(value)
            return studio.status()

        def hint(name, chosen_preset):
            return studio.estimate(name, chosen_preset) if chosen_preset else ""

        # What changes by itself: only what has changed is sent.
        def look(known, *current):
            (v, p, s, r, pu, d, re, ch, marked, job) = current
            lists = {kind: space.names(kind) for kind in space.KINDS}
            trained = [
                x for x in lists["runs"] if (space.path("runs", x) / "puppet.keras").exists()
            ]
            pending = [Path(x.target).name for x in queue.jobs() if x.kind == "train"]
            runs = list(dict.fromkeys([*lists["runs"], *pending]))
            state = {
                "status": studio.status(),
                "videos": lists["videos"],
                "portraits": studio.ready("portraits"),
                "runs": runs,
                "trained": trained,
                "driven": studio.ready("driven"),
                "jobs": studio.table(),
                "log": show_log(job) if job else "",
            }
            name = r if r in runs else (runs[0] if runs else None)
            if name:
                state["run"] = [name, studio.stages(name), _stamp(space.path("runs", name))]
            if ch:
                state["chosen"] = [ch, _stamp(space.path("runs", ch))]
            if marked:
                there = [x for x in marked if x in lists["runs"]]
                state["compared"] = [[x, _stamp(space.path("runs", x))] for x in there]
            new = {key for key, value in state.items() if known.get(key) != value}

            def when(key, make):
                return make() if key in new else gr.skip()

            def choice(kind, value):
                names = state[kind]
                # What has just come is shown, unless a person looks at something else.
                fresh = [x for x in names if x not in (known.get(kind) or ())]
                first = known.get(kind) is not None and fresh
                if first or value not in names:
                    value = fresh[0] if first else (names[0] if names else None)
                return gr.Dropdown(choices=names, value=value)

            def same(kind, value):
                names = state[kind]
                value = value if value in names else (names[0] if names else None)
                return gr.Dropdown(choices=names, value=value)

            shown_run = show_run(name) if "run" in new else [gr.skip()] * 4
            shown_compared = compare(marked) if "compared" in new else [gr.skip()] * 4
            shown_chosen = show_chosen(ch) if "chosen" in new else [gr.skip()] * 3
            return (
                state,
                when("status", lambda: state["status"]),
                when("videos", lambda: same("videos", v)),
                when("portraits", lambda: choice("portraits", p)),
                when("portraits", lambda: choice("portraits", s)),
                when("runs", lambda: same("runs", r)),
                when("trained", lambda: choice("trained", pu)),
                when("videos", lambda: same("videos", d)),
                when("driven", lambda: choice("driven", re)),
                when("runs", lambda: same("runs", ch)),
                when(
                    "runs",
                    lambda: gr.CheckboxGroup(
                        choices=lists["runs"],
                        value=[x for x in marked or lists["runs"][:4] if x in lists["runs"]],
                    ),
                ),
                when("jobs", lambda: state["jobs"]),
                when("log", lambda: state["log"]),
                *shown_run,
                *shown_chosen,
                *shown_compared,
            )

        watched = [video, portrait, source, run, puppet, driving, result, chosen, compared, number]
        run_parts = [stages, previews, losses, qualities]
        compared_parts = [table, first_stage, second_stage, sheets]
        chosen_parts = [puppet_file, report_file, card]
        targets = [seen, status, video, portrait, source, run, puppet, driving, result, chosen]
        targets += [compared, listed, log, *run_parts, *chosen_parts, *compared_parts]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        private: dict[str, Any] = {"api_visibility": "private"}
        for when_ in (timer.tick, page.load):
            when_(look, [seen, *watched], targets, **quiet)
        upload.upload(take, [upload], [video, driving, upload], **private)
        camera.stop_recording(recorded, [camera], [video, driving, camera], **private)
        driving_upload.upload(
            take_for_driving, [driving_upload], [video, driving, driving_upload], **private
        )
        driving_camera.stop_recording(
            recorded_for_driving, [driving_camera], [video, driving, driving_camera], **private
        )
        demo.click(take_demo, [], [video, driving], **private)
        video.change(show_video, [video], [shown], **quiet)
        portrait.change(show_portrait, [portrait], [coverage, landmarks], **quiet)
        result.change(show_result, [result], [made, made_file], **quiet)
        run.change(show_run, [run], run_parts, **quiet)
        chosen.change(show_chosen, [chosen], chosen_parts, **quiet)
        compared.change(compare, [compared], compared_parts, **quiet)
        number.change(show_log, [number], [log], **quiet)
        for changed in (source.change, preset.change):
            changed(hint, [source, preset], [estimate], **quiet)
        prepare.click(begin_prepare, [video, start, end], [status], **private)
        train.click(begin_train, [source, preset, minutes], [status, run], **private)
        drive.click(
            begin_drive,
            [puppet, driving, retargeting, guard, motion, background, beside, mark],
            [status],
            **private,
        )
        score.click(begin_score, [chosen], [status], **private)
        stop.click(stop_run, [run], [status], **private)
        go_on.click(resume_run, [run], [status], **private)
        stop_job.click(stop_one, [number], [status], **private)
        again_job.click(again, [number], [status], **private)
    return page


def _camera():
    """A picture that is not mirrored, and no larger than a face needs."""
    size = {"width": {"ideal": 1280}, "height": {"ideal": 720}}
    return gr.WebcamOptions(mirror=False, constraints={"video": size})


@contextlib.contextmanager
def _said():
    """What is refused is said on the page, and stays there until it is read."""
    try:
        yield
    except VPGCError as error:
        raise gr.Error(str(error), duration=None, title="", print_exception=False) from None


def _job_of(studio, run):
    if not run:
        raise VPGCError("No run is picked: pick one first.")
    job = studio.queue.last_for(studio.workspace.path("runs", run))
    if job is None:
        raise VPGCError(f"{run} was not trained from here: press Train with its settings.")
    return job


def _there(path):
    return str(path) if path is not None and path.exists() else None


def _file(space, kind, name):
    return _there(space.path(kind, name)) if name else None


def _forget(space, file):
    """Delete an upload's copy in Gradio's cache; nothing else."""
    path = Path(file).resolve()
    if path.is_relative_to(space.state / "cache"):
        path.unlink(missing_ok=True)


def _stamp(run):
    """What changes when there is something new to see of a run."""
    made = [run / x for x in ("puppet.keras", "driver.keras", "MODEL_CARD.md")]
    files = [*run.glob("logs/*.csv"), *run.glob("previews/*.png"), *made]
    files += run.glob("evaluation/*.json")
    files = [x for x in files if x.exists()]
    return [len(files), max((x.stat().st_mtime for x in files), default=0)]


def _points(points, wanted=(), by_stage=False):
    rows = [x for x in points if x["curve"] in wanted]
    if by_stage:
        rows = [{**x, "curve": f"{x['stage']}: {x['curve']}"} for x in rows]
    table = pd.DataFrame(rows, columns=["run", "stage", "curve", "step", "value"])
    # An empty column would be one of words, and its axis stay so.
    return table.astype({"step": "int64", "value": "float64"})
