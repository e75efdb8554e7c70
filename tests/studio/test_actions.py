"""What the buttons ask of the command, and what they refuse."""

import shutil

import pytest

from keras_vpgc import VPGCError
from keras_vpgc.studio.actions import Studio
from keras_vpgc.studio.jobs import JobQueue
from keras_vpgc.studio.workspace import Workspace
from tests.studio.test_progress import make_run

pytestmark = pytest.mark.once


@pytest.fixture
def studio(tmp_path):
    """One whose queue stands still, so that jobs wait."""
    workspace = Workspace(tmp_path / "w")
    queue = JobQueue(workspace.state / "jobs")
    yield Studio(workspace, queue)
    queue.close()


def test_each_button_is_a_command_that_vpgc_knows(studio, clip, portrait, tmp_path):
    """The words are parsed by the real command, up to where the work would begin."""
    import typer

    from keras_vpgc.cli.app import app

    space = studio.workspace
    video = space.take(clip, "me")
    name, job = studio.prepare(video, "0:00.5", "2")
    assert name == "me" and job.arguments[:2] == ["prepare", str(space.path("videos", video))]
    jobs = [job]
    shutil.copytree(portrait.path, space.path("portraits", "me"))
    run, job = studio.train("me", "vpgc_tiny", minutes=3)
    assert run == "me-vpgc_tiny" and job.target == str(space.path("runs", run))
    assert "time_limit=180" in job.arguments
    jobs.append(job)
    make_run(space.path("runs", "done"), {}, done=True)
    name, job = studio.drive(
        "done", video, "absolute", "clamp", 0.5, "green", beside=True, mark=True
    )
    assert name == "done-by-me.mp4" and "--background" in job.arguments
    with pytest.raises(VPGCError, match="Drive done by me is in the queue already"):
        studio.drive("done", video, "absolute", "clamp", 0.5, "green", beside=True, mark=True)
    other, last = studio.drive("done", video, "none")
    assert other == "done-by-me-2.mp4"
    jobs += [job, studio.evaluate("done"), last]
    command = typer.main.get_command(app)
    for job in jobs:
        verb = command.commands[job.kind]
        with verb.make_context(job.kind, list(job.arguments[1:])) as context:
            assert context.params
    assert sorted(x.number for x in studio.queue.jobs()) == [1, 2, 3, 4, 5]


def test_two_tabs_train_at_once(studio, portrait):
    shutil.copytree(portrait.path, studio.workspace.path("portraits", "me"))
    studio.train("me", "vpgc_tiny")
    with pytest.raises(VPGCError, match="Train me-vpgc_tiny waits already"):
        studio.train("me", "vpgc_tiny")
    studio.train("me", "vpgc_128")
    assert len(studio.queue.jobs()) == 2


def test_a_finished_run_is_not_trained_over_with_other_settings(studio, portrait):
    shutil.copytree(portrait.path, studio.workspace.path("portraits", "me"))
    _, job = studio.train("me", "vpgc_tiny")
    studio.queue.cancel(job.number)
    # What is not finished goes on in its place.
    assert studio.train("me", "vpgc_tiny")[0] == "me-vpgc_tiny"
    studio.queue.cancel(2)
    make_run(studio.workspace.path("runs", "me-vpgc_tiny"), {}, done=True)
    name, job = studio.train("me", "vpgc_tiny", minutes=3)
    assert name == "me-vpgc_tiny-2" and job.target == str(studio.workspace.path("runs", name))
    studio.queue.cancel(job.number)
    # Each pair of settings is one run.
    assert studio.train("me", "vpgc_tiny")[0] == "me-vpgc_tiny"
    make_run(studio.workspace.path("runs", name), {}, done=True)
    assert studio.train("me", "vpgc_tiny", minutes=3)[0] == name
    assert studio.train("me", "vpgc_tiny", minutes=4)[0] == "me-vpgc_tiny-3"


def test_the_longest_names_go_all_the_way(studio, clip, portrait):
    space = studio.workspace
    space.take(clip, "x" * 80)
    video = space.take(clip, "x" * 80)
    name, _ = studio.prepare(video)
    shutil.copytree(portrait.path, space.path("portraits", name))
    run, _ = studio.train(name, "vpgc_tiny")
    make_run(space.path("runs", run), {}, done=True)
    assert run in space.names("runs")
    assert space.path("driven", studio.drive(run, video)[0])


def test_a_video_is_prepared_once_more_into_its_own_portrait(studio, clip, portrait):
    video = studio.workspace.take(clip, "me")
    name, job = studio.prepare(video)
    studio.queue.cancel(job.number)
    # What was stopped goes on in its place; another part is another portrait.
    shutil.copytree(portrait.path, studio.workspace.path("portraits", "me"))
    again, other = studio.prepare(video)
    assert (again, other.target) == (name, job.target)
    studio.queue.cancel(other.number)
    another, _ = studio.prepare(video, "1")
    assert another == "me-2"


def test_what_cannot_be_begun_is_said(studio, clip):
    video = studio.workspace.take(clip, "me")
    make_run(studio.workspace.path("runs", "half"), {"codebook": [1.0]})
    for call, sentence in (
        (lambda: studio.prepare(None), "pick a video first"),
        (lambda: studio.prepare("../../etc/passwd"), "nothing called '../../etc/passwd' here"),
        (lambda: studio.prepare(video, "1:75"), "H:M:S"),
        (lambda: studio.train(None, "vpgc_tiny"), "pick a portrait first"),
        (lambda: studio.train("--help", "vpgc_tiny"), "nothing called"),
        (lambda: studio.drive("half", video), "half is not trained to its end yet"),
        (lambda: studio.evaluate("gone"), "gone is no longer there"),
        (lambda: studio.drive(None, video), "pick a run first"),
    ):
        with pytest.raises(VPGCError, match=sentence):
            call()
    make_run(studio.workspace.path("runs", "done"), {}, done=True)
    with pytest.raises(VPGCError, match="no 'red; rm': choose one of as it is, green"):
        studio.drive("done", video, background="red; rm")
    with pytest.raises(VPGCError, match="no preset"):
        shutil.copytree(
            studio.workspace.path("runs", "done"), studio.workspace.path("portraits", "p")
        )
        studio.train("p", "vpgc_9000")
    assert studio.queue.jobs() == []


def test_nothing_is_shown_as_html_that_came_from_outside(studio):
    make_run(studio.workspace.path("runs", "r"), {})
    job = studio.queue.add("train", "<script>x</script>", [], studio.workspace.path("runs", "r"))
    job = studio.queue.cancel(job.number)
    assert "<script>" not in studio.status() + studio.stages("r")
    assert "&lt;script&gt;" in studio.status()


def test_how_long_it_took_before(studio, portrait):
    assert "No training of this preset has ended" in studio.estimate("me", "vpgc_tiny")
    make_run(studio.workspace.path("runs", "a"), {"codebook": [60.0], "driver": [60.0]}, done=True)
    assert "of the same preset, took 2 min here" in studio.estimate("me", "vpgc_tiny")
    assert "No training" in studio.estimate("me", "vpgc_128")
