import os
import shutil
import subprocess
import sys

import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import parallel

pytestmark = pytest.mark.once

JOB = "tests.data.jobs:squares"


def test_tasks_are_done_by_processes_that_load_no_network(tmp_path):
    told = []
    tasks = [{"n": n} for n in range(12)]
    parallel.run(JOB, {"folder": str(tmp_path)}, tasks, 2, told.append)
    found = [(tmp_path / f"{n}.txt").read_text().split(maxsplit=2) for n in range(12)]
    assert [int(text[0]) for text in found] == [n**2 for n in range(12)]
    assert str(os.getpid()) not in {text[1] for text in found}
    assert {text[2] for text in found} == {"[]"}
    assert sum(told) == 12


def test_one_worker_is_this_process(tmp_path):
    parallel.run(JOB, {"folder": str(tmp_path)}, [{"n": 3}, {"n": 4}], 1)
    assert (tmp_path / "4.txt").read_text().split()[:2] == ["16", str(os.getpid())]


@pytest.mark.parametrize(
    "what, error, message",
    [
        ("refuse", VPGCError, "The number is bad: choose another."),
        ("fill the disk", OSError, "No space left on device"),
        ("fail", RuntimeError, "ZeroDivisionError: a mistake"),
        ("die", VPGCError, "exit code 9.*goes on from here"),
    ],
)
def test_what_goes_wrong_in_a_process_is_said_here(what, error, message, tmp_path):
    tasks = [{"do": what}, {"n": 1}]
    with pytest.raises(error, match=message) as caught:
        parallel.run(JOB, {"folder": str(tmp_path)}, tasks, 2)
    if error is OSError:
        assert (caught.value.errno, caught.value.filename) == (28, "x.npz")


def test_process_that_ends_before_it_is_told_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    serve = parallel._Process.serve

    def late(self, todo, said):
        self.process.wait()
        serve(self, todo, said)

    monkeypatch.setattr(parallel._Process, "serve", late)
    with pytest.raises(VPGCError, match="exit code 1.*goes on from here"):
        parallel.run(JOB, {"folder": str(tmp_path)}, [{"n": 1}, {"n": 2}], 2)


def test_script_without_a_main_guard_does_not_start_itself_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os; os.environ['KERAS_VPGC_WORKER'] = '1'\n"  # no network here either: quick
        "from keras_vpgc.data import parallel\n"
        "print('started')\n"
        f"parallel.run({JOB!r}, {{'folder': {str(tmp_path)!r}}}, [{{'n': 1}}, {{'n': 2}}], 2)\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "started\n"), result.stderr
    assert (tmp_path / "2.txt").exists()
