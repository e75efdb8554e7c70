import io
import sys

import pytest

from keras_vpgc import progress

pytestmark = pytest.mark.once


def test_a_log_gets_lines_and_a_terminal_a_bar(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.progress_bar(4, "driving") as bar:
        for _ in range(2):
            bar.update(2)
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("driving: 0/4 frames") and lines[-1].startswith("driving: 4/4")
    assert "\r" not in log.getvalue() and len(lines) == len(set(lines))

    monkeypatch.setattr(log, "isatty", lambda: True, raising=False)
    log.truncate(0)
    with progress.progress_bar(4, "driving") as bar:
        bar.update(4)
    assert "\rdriving" in log.getvalue()


def test_a_long_job_does_not_fill_a_log(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress.progress_bar(1000, "driving") as bar:
        for _ in range(1000):
            bar.update()
    assert len(log.getvalue().splitlines()) <= 3
    log.truncate(0)
    with progress.progress_bar(5, "driving", show=False) as bar:
        bar.update()
    assert not log.getvalue().strip("\0")
