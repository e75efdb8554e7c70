"""Jobs for the tests of `keras_vpgc.data.parallel`; worker processes import this file."""

import contextlib
import os
import sys
from pathlib import Path

from keras_vpgc.errors import VPGCError


@contextlib.contextmanager
def squares(folder):
    def work(task, progress):
        if task == {"do": "refuse"}:
            raise VPGCError("The number is bad: choose another.")
        if task == {"do": "fill the disk"}:
            raise OSError(28, "No space left on device", "x.npz")
        if task == {"do": "fail"}:
            raise ZeroDivisionError("a mistake")
        if task == {"do": "die"}:
            os._exit(9)
        heavy = sorted({"keras", "torch", "tensorflow", "jax"} & set(sys.modules))
        print("what a library prints is no answer")
        Path(folder, f"{task['n']}.txt").write_text(f"{task['n'] ** 2} {os.getpid()} {heavy}")
        progress(1)

    yield work
