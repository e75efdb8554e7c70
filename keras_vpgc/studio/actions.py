"""What the page's buttons do: names and choices that may come from anywhere become jobs."""

import html
import json
import urllib.parse
from pathlib import Path

from keras_vpgc.errors import VPGCError
from keras_vpgc.studio import jobs, progress
from keras_vpgc.studio.jobs import Job, JobQueue
from keras_vpgc.studio.workspace import Workspace, safe_name

RETARGETING = ("auto", "none", "relative", "absolute")
GUARDS = ("warn", "clamp", "off")
BACKGROUNDS = ("as it is", "green", "blue", "white", "black")
STATES = {
    jobs.WAITING: "waits",
    jobs.RUNNING: "runs",
    jobs.DONE: "done",
    jobs.FAILED: "failed",
    jobs.STOPPED: "stopped",
}
DEMO = "demonstration.mp4"


class Studio:
    """The workspace and its queue, as the page uses them.

    Args:
        workspace: A `Workspace`.
        queue: A `JobQueue`.

    Example:

    ```python
    studio = Studio(workspace, queue)
    studio.prepare(workspace.take("me.mp4"))
    ```
    """

    def __init__(self, workspace: Workspace, queue: JobQueue):
        self.workspace, self.queue = workspace, queue

    def demonstration(self) -> str:
        """Fetch the demonstration clip into the workspace, once; returns its name.

        Raises:
            VPGCError: if it cannot be had, or does not fit.
        """
        from keras_vpgc import assets

        if DEMO in self.workspace.names("videos"):
            return DEMO
        return self.workspace.take(assets.find("demo_acting"), DEMO)

    def prepare(self, video: str | None, start: str = "", end: str = "") -> tuple[str, Job]:
        """Make a portrait of a video.

        Args:
            video: A name among the videos.
            start, end: Seconds or H:M:S, or "".

        Returns:
            The portrait's name, and the job.

        Raises:
            VPGCError: for what cannot be begun.
        """
        source = self.workspace.existing("videos", video)
        options = []
        for option, value in (("--start", start), ("--end", end)):
            if value and value.strip():
                from keras_vpgc.data.shots import parse_time

                parse_time(value.strip())
                options.append(f"{option}={value.strip()}")
        # The same video again goes on, or is made of another part.
        name = safe_name(source.stem)
        target = self.workspace.path("portraits", name)
        last = self.queue.last_for(target)
        if source.name == DEMO:
            # Its twenty seconds end in poses that come nowhere else: it is tested all over.
            options += ["--test-blocks", "6"]
        words = [str(source), "-o", str(target), *options]
        if target.exists() and (last is None or last.arguments[1:] != words):
            name = self.workspace.free_name("portraits", name)
            target = self.workspace.path("portraits", name)
            words[2] = str(target)
        return name, self.queue.add("prepare", f"Prepare {name}", words, target)

    def train(
        self, portrait: str | None, preset: str, minutes: float = 0, run: str = ""
    ) -> tuple[str, Job]:
        """Train a puppet.

        Args:
            portrait: A name among the portraits.
            preset: Name of a preset.
            minutes: After which each stage ends early; 0 for the preset's whole length.
            run: The run's name; default: of portrait and preset.

        Returns:
            The run's name, and the job.

        Raises:
            VPGCError: for what cannot be begun.
        """
        from keras_vpgc.models import presets

        source = self.workspace.existing("portraits", portrait)
        presets.get(preset)
        name = safe_name(run) or f"{portrait}-{preset}"
        options = ["--preset", preset, "--set", "codebook_pictures=true"]
        if minutes:
            options += ["--set", f"time_limit={60 * float(minutes):g}"]
        # The same again goes on; a run that was finished with other settings stays as it is.
        wish, number = name, 1
        while True:
            target = self.workspace.path("runs", name)
            words = [str(source), "-o", str(target), *options]
            last = self.queue.last_for(target)
            same = last is not None and last.arguments[1:] == words
            if same or not (target / "puppet.keras").exists():
                break
            number += 1
            name = f"{wish}-{number}"
        return name, self.queue.add("train", f"Train {name}", words, target)

    def evaluate(self, run: str | None) -> Job:
        """Score a run on its held-out frames.

        Raises:
            VPGCError: for what cannot be begun.
        """
        folder = self._trained(run)
        target = folder / "evaluation"
        return self.queue.add("evaluate", f"Score {run}", [str(folder)], target)

    def drive(
        self,
        run: str | None,
        video: str | None,
        retargeting: str = "auto",
        guard: str = "warn",
        motion: float = 1.0,
        background: str = BACKGROUNDS[0],
        beside: bool = False,
        mark: bool = False,
    ) -> tuple[str, Job]:
        """Drive a puppet by a video.

        Args:
            run: A name among the runs.
            video: A name among the videos.
            retargeting, guard, motion: See `vpgc reenact`.
            background: One of `BACKGROUNDS`.
            beside: Show the driving face too?
            mark: Write "synthetic" into a corner?

        Returns:
            The result's name, and the job.

        Raises:
            VPGCError: for what cannot be begun.
        """
        folder = self._trained(run)
        source = self.workspace.existing("videos", video)
        for value, allowed in (
            (retargeting, RETARGETING),
            (guard, GUARDS),
            (background, BACKGROUNDS),
        ):
            if value not in allowed:
                raise VPGCError(f"There is no {value!r}: choose one of {', '.join(allowed)}.")
        words = [str(folder), "--driving", str(source), "--guard", guard]
        words += ["--retargeting", retargeting]
        if retargeting != "none":
            words += ["--motion", f"{min(1.0, max(0.0, float(motion))):g}"]
        if background != BACKGROUNDS[0]:
            words += ["--background", background]
        words += ["--side-by-side"] if beside else []
        words += ["--mark", "synthetic"] if mark else []
        title = f"Drive {run} by {source.stem}"
        pending = [x for x in self.queue.jobs() if x.kind == "reenact" and x.state in jobs.OPEN]
        for job in pending:
            if job.arguments[1:-2] == words:
                raise VPGCError(f"{title} is in the queue already, with the same settings.")
        taken = [Path(x.target).name for x in pending]
        name = self.workspace.free_name("driven", f"{run}-by-{source.stem}", ".mp4", taken)
        target = self.workspace.path("driven", name)
        return name, self.queue.add("reenact", title, [*words, "-o", str(target)], target)

    def _trained(self, run):
        folder = self.workspace.existing("runs", run)
        if not (folder / "puppet.keras").exists():
            raise VPGCError(f"{run} is not trained to its end yet: let its training go on first.")
        return folder

    def runs(self, names=None) -> dict[str, Path]:
        """Name -> folder of the runs, or of some of them."""
        names = self.workspace.names("runs") if names is None else names
        return {name: self.workspace.existing("runs", name) for name in names}

    def progress(self, run: str) -> progress.RunProgress:
        """Where a training is; speeds are told from the other runs too."""
        others = [path for name, path in self.runs().items() if name != run]
        return progress.read_progress(self.workspace.path("runs", run), others)

    def estimate(self, portrait: str | None, preset: str) -> str:
        """How long a training took here before, in a sentence."""
        for folder in self.runs().values():
            state = progress.read_progress(folder)
            try:
                config = json.loads((folder / "run.json").read_text())["config"]
            except (OSError, ValueError, KeyError):
                continue
            if state.done and config["preset"] == preset and not config["recipe"]["time_limit"]:
                took = progress.clock(sum(x.seconds for x in state.stages))
                return f"The steps of {folder.name}, of the same preset, took {took} here."
        return (
            "No training of this preset has ended on this machine: the time it takes is told once "
            "it has done some steps."
        )

    def coverage_page(self, portrait: str | None) -> str:
        """The coverage report of a portrait, HTML; "" if there is none."""
        if not portrait:
            return ""
        file = self.workspace.path("portraits", portrait) / "coverage.html"
        if not file.exists():
            return ""
        # Without scripts, and without any rights of the page around it.
        return (
            f'<iframe class="report" title="Coverage report of {html.escape(portrait)}" sandbox '
            f'src="{html.escape(address_of(file))}"></iframe>'
        )

    def ready(self, kind: str) -> list[str]:
        """The names of a kind that no open job still works on."""
        busy = {Path(x.target) for x in self.queue.jobs() if x.state in jobs.OPEN}
        names = self.workspace.names(kind)
        return [x for x in names if self.workspace.path(kind, x) not in busy]

    def model_card(self, run: str | None) -> str:
        """The model card of a run, Markdown; "" if there is none."""
        if not run:
            return ""
        try:
            return (self.workspace.path("runs", run) / "MODEL_CARD.md").read_text(encoding="utf-8")
        except OSError:
            return ""

    def status(self) -> str:
        """What runs and what waits, HTML."""
        running = self.queue.running()
        waiting = sum(x.state == jobs.WAITING for x in self.queue.jobs())
        queued = f" {waiting} more {'waits' if waiting == 1 else 'wait'}." if waiting else ""
        if running is None:
            last = next((x for x in self.queue.jobs() if x.state != jobs.WAITING), None)
            if last is None:
                return _bar(f"Nothing runs.{queued}", None, "")
            return _bar(f"Nothing runs.{queued} Last: {last.title}, {STATES[last.state]}.", None,
                        last.message, last.state)  # fmt: skip
        if self.queue.stopping(running.number):
            return _bar(f"{running.title} is stopping.{queued}", None, "It saves what it has.")
        text = f"{running.title} runs since {progress.clock(running.seconds)}.{queued}"
        if running.kind == "train":
            state = self.progress(Path(running.target).name)
            return _bar(text, state.share, state.sentence, jobs.RUNNING)
        return _bar(text, None, last_line(self.queue.log(running.number)), jobs.RUNNING)

    def stages(self, run: str | None) -> str:
        """The stages of a training, HTML."""
        if not run:
            return ""
        state = self.progress(run)
        job = self.queue.last_for(self.workspace.path("runs", run))
        lines = [f"<p><b>{html.escape(run)}</b>: {html.escape(self._state_of(job, state))}</p>"]
        for stage in state.stages:
            share = min(1.0, stage.steps / stage.total) if stage.total else 0.0
            if stage.left == 0:
                share, text = 1.0, f"done, {progress.clock(stage.seconds)}"
            elif stage.left is None:
                text = "not begun" if not stage.steps else ""
            else:
                text = f"about {progress.clock(stage.left)} left"
                text += "" if stage.measured else " (by your earlier runs)"
            lines.append(
                f'<div class="stage"><span>{stage.title}</span><progress value="{share:.4f}">'
                f"</progress><span>{stage.steps} of {stage.total} steps"
                f"{', ' + text if text else ''}</span></div>"
            )
        return "".join(lines)

    def _state_of(self, job, state):
        if job is not None and job.state == jobs.RUNNING:
            return "It stops." if self.queue.stopping(job.number) else state.sentence
        if state.done:
            return "The training is done."
        if job is not None and job.state == jobs.WAITING:
            return "It waits for its turn."
        if job is not None:
            return f"{STATES[job.state].capitalize()}. {job.message}"
        return "It was not trained to its end: start it again to go on."

    def table(self) -> list[list]:
        """The jobs, a row each: number, what, state, time, message."""
        return [
            [
                job.number,
                job.title,
                STATES[job.state],
                progress.clock(job.seconds) if job.began else "",
                job.message,
            ]
            for job in self.queue.jobs()
        ]


def address_of(file: Path) -> str:
    """Where the page finds a file of the workspace; another one once it has changed."""
    return f"/gradio_api/file={urllib.parse.quote(str(file))}?{file.stat().st_mtime_ns}"


def pictures(captions) -> str:
    """Pictures below each other, HTML.

    Args:
        captions: Pairs of a caption and the path of a picture in the workspace.
    """
    figures = [
        f'<figure><img src="{html.escape(address_of(file))}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, file in captions
    ]
    return f'<div class="pictures">{"".join(figures)}</div>'


def folded(title: str, content: str) -> str:
    """HTML that is shown when its title is pressed."""
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"


def last_line(log: str) -> str:
    """The last line of a log, for people."""
    lines = log.splitlines()
    return lines[-1][:200] if lines else "It begins."


def _bar(text, share, more, state=""):
    bar = "" if share is None else f'<progress value="{share:.4f}"></progress>'
    more = f'<span class="more">{html.escape(more)}</span>' if more else ""
    return (
        f'<div class="status {state}" role="status"><span>{html.escape(text)}</span>{bar}{more}'
        "</div>"
    )
