"""The queue, over a command that does what it is told."""

import json
import os
import signal
import time

import pytest

from keras_vpgc import VPGCError
from keras_vpgc.studio.jobs import JobQueue

pytestmark = pytest.mark.once

COMMAND = """
import os, sys, time

def main():
    verb, *words = sys.argv[1:]
    if verb == "say":
        print("\\rhalf\\rwhole")
        print(*words)
        print("| a | table |")
        print("Look at the page")
    elif verb == "refuse":
        print("vpgc: me.mp4 is empty (0 bytes): copy or record it again.", file=sys.stderr)
        sys.exit(1)
    elif verb == "break":
        print("vpgc: some frames have no face.", file=sys.stderr)
        raise RuntimeError("a bug")
    elif verb == "die":
        os.kill(os.getpid(), 9)
    elif verb == "work":
        open(words[0] + ".began", "a").write("x")
        try:
            while not os.path.exists(words[0] + ".enough"):
                time.sleep(0.05)
        except KeyboardInterrupt:
            open(words[0] + ".kept", "w").write("x")
            print("vpgc: stopped; the same command goes on from here.", file=sys.stderr)
            sys.exit(130)
        print("ready")
    elif verb == "stubborn":
        open(words[0] + ".began", "a").write("x")
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass
"""


@pytest.fixture
def settings(tmp_path):
    package = tmp_path / "fake" / "keras_vpgc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text(COMMAND)
    return {"environment": {"PYTHONPATH": str(tmp_path / "fake")}}


@pytest.fixture
def queue(tmp_path, settings):
    with JobQueue(tmp_path / "w" / ".studio" / "jobs", **settings) as queue:
        yield queue
        for job in queue.jobs():
            if job.state in ("waiting", "running"):
                queue.cancel(job.number)
                queue.wait(job.number, 60)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_how_a_job_ended_is_said(queue):
    said = queue.add("say", "Say it", ["done", "well"], "a")
    refused = queue.add("refuse", "Refuse it", [], "b")
    broken = queue.add("break", "Break it", [], "c")
    killed = queue.add("die", "Die", [], "d")
    job = queue.wait(said.number)
    assert (job.state, job.message) == ("done", "done well")
    # A bar that is written over shows its last state.
    assert queue.log(job.number).splitlines()[:2] == ["whole", "done well"]
    job = queue.wait(refused.number)
    assert (job.state, job.message) == (
        "failed", "me.mp4 is empty (0 bytes): copy or record it again.",
    )  # fmt: skip
    job = queue.wait(broken.number)
    assert job.state == "failed" and "RuntimeError: a bug" in queue.log(job.number)
    # A warning before it is not why.
    assert job.message == "It ended with code 1: see its log."
    job = queue.wait(killed.number)
    assert job.state == "failed" and job.message.startswith("It was killed from outside")
    assert 0 < job.seconds < 60


def test_one_at_a_time_in_their_order(queue, tmp_path):
    first = queue.add("work", "First", [tmp_path / "a"], "a")
    second = queue.add("work", "Second", [tmp_path / "b"], "b")
    until((tmp_path / "a.began").exists)
    assert [x.state for x in queue.jobs()] == ["waiting", "running"]
    # Two tabs ask for the same.
    with pytest.raises(VPGCError, match="First runs already: .*nothing was started twice"):
        queue.add("work", "First", [tmp_path / "a"], "a")
    with pytest.raises(VPGCError, match="Second waits already"):
        queue.add("work", "Second", [tmp_path / "b"], "b")
    time.sleep(0.5)
    assert not (tmp_path / "b.began").exists()
    (tmp_path / "a.enough").touch()
    assert queue.wait(first.number).state == "done"
    until((tmp_path / "b.began").exists)
    (tmp_path / "b.enough").touch()
    assert queue.wait(second.number).state == "done"
    assert (tmp_path / "a.began").read_text() == (tmp_path / "b.began").read_text() == "x"


def test_stopping_is_an_interrupt_and_goes_on_by_the_same_command(queue, tmp_path):
    job = queue.add("work", "Work", [tmp_path / "a"], "a")
    waiting = queue.add("work", "Wait", [tmp_path / "b"], "b")
    until((tmp_path / "a.began").exists)
    assert queue.cancel(waiting.number).state == "stopped"
    queue.cancel(job.number)
    job = queue.wait(job.number)
    assert job.state == "stopped" and "can go on" in job.message
    assert (tmp_path / "a.kept").exists() and not (tmp_path / "b.began").exists()
    with pytest.raises(VPGCError, match="has ended already"):
        queue.cancel(job.number)
    again = queue.again(job.number)
    assert again.arguments == job.arguments and again.number == 3
    with pytest.raises(VPGCError, match="has not ended"):
        queue.again(again.number)
    (tmp_path / "a.enough").touch()
    assert queue.wait(again.number).state == "done"


def test_a_job_that_does_not_listen_is_ended(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "keras_vpgc.studio.jobs.PATIENCE", ((signal.SIGINT, 0.5), (signal.SIGTERM, 0.5))
    )
    job = queue.add("stubborn", "Stubborn", [tmp_path / "a"], "a")
    until((tmp_path / "a.began").exists)
    queue.cancel(job.number)
    assert queue.wait(job.number, 60).state == "stopped"


def test_a_job_outlives_the_studio(tmp_path, settings):
    folder = tmp_path / "w" / ".studio" / "jobs"
    with JobQueue(folder, **settings) as queue:
        job = queue.add("work", "Work", [tmp_path / "a"], "a")
        later = queue.add("say", "Later", ["hello"], "b")
        until((tmp_path / "a.began").exists)
        with pytest.raises(VPGCError, match="Another vpgc studio works in"):
            JobQueue(folder, **settings)
    with JobQueue(folder, **settings) as queue:
        time.sleep(1)
        assert queue.get(job.number).state == "running"
        assert queue.get(later.number).state == "waiting"
        (tmp_path / "a.enough").touch()
        job = queue.wait(job.number)
        assert (job.state, job.message) == ("done", "ready")
        assert queue.wait(later.number).message == "hello"
    assert (tmp_path / "a.began").read_text() == "x"


def test_a_job_that_was_killed_with_the_studio(tmp_path, settings):
    folder = tmp_path / "w" / ".studio" / "jobs"
    with JobQueue(folder, **settings) as queue:
        job = queue.add("work", "Work", [tmp_path / "a"], "a")
        until((tmp_path / "a.began").exists)
        process = queue.get(job.number).process
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    (folder / "000007.json").write_text("{damaged")
    with JobQueue(folder, **settings) as queue:
        job = queue.wait(job.number, 60)
        assert job.state == "failed" and "killed from outside" in job.message
        assert [x.number for x in queue.jobs()] == [1]


def test_a_job_runs_once_even_where_its_beginning_could_not_be_noted(tmp_path, settings):
    folder = tmp_path / "w" / ".studio" / "jobs"
    with JobQueue(folder, **settings) as queue:
        job = queue.add("work", "Work", [tmp_path / "a"], "a")
        waiting = (folder / "000001.json").read_text()
        until((tmp_path / "a.began").exists)
    # As after a full disk: the note says that it waits, and it runs.
    (folder / "000001.json").write_text(waiting)
    with JobQueue(folder, **settings) as queue:
        until(lambda: queue.get(job.number).state == "running")
        (tmp_path / "a.enough").touch()
        job = queue.wait(job.number, 60)
        assert (job.state, job.message) == ("done", "ready")
    # Or has ended.
    (folder / "000001.json").write_text(waiting)
    with JobQueue(folder, **settings) as queue:
        job = queue.wait(job.number, 60)
        assert (job.state, job.message) == ("done", "ready")
    assert (tmp_path / "a.began").read_text() == "x"


def test_no_room(tmp_path, settings):
    def full():
        raise VPGCError("The disk has 3 MB left.")

    with JobQueue(tmp_path / "w" / ".studio" / "jobs", check=full, **settings) as queue:
        with pytest.raises(VPGCError, match="The disk has 3 MB left"):
            queue.add("say", "Say", [], "a")
        assert queue.jobs() == []


def test_too_many_wait(queue, tmp_path):
    queue.add("work", "Work", [tmp_path / "a"], "a")
    until((tmp_path / "a.began").exists)
    for number in range(20):
        queue.add("say", "Say", [], f"b{number}")
    with pytest.raises(VPGCError, match="20 jobs wait already"):
        queue.add("say", "Say", [], "c")
    for job in queue.jobs()[:20]:
        queue.cancel(job.number)
    with pytest.raises(VPGCError, match="no job 99"):
        queue.get(99)


def test_what_is_written_down_is_plain(queue):
    job = queue.add("say", "Say", ["x"], "a")
    queue.wait(job.number)
    note = json.loads((queue.folder / "000001.json").read_text())
    assert note["arguments"] == ["say", "x"] and note["state"] == "done"
