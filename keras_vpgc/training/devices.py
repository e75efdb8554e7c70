"""Training on several devices: one flag, whatever the backend does for it.

JAX divides each batch inside one process (`keras.distribution.DataParallel`), TensorFlow copies the
models (`MirroredStrategy`), PyTorch takes a process a device (`torch.distributed`), which are
started here unless `torchrun` did.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from keras_vpgc import backend
from keras_vpgc.errors import VPGCError


def resolve_devices(devices: int) -> int:
    """The number of devices to train on.

    Args:
        devices: Number asked for. Under `torchrun` 1 stands for all of its processes.

    Returns:
        The number.

    Raises:
        VPGCError: if there are fewer, or `torchrun` started another number of processes.
    """
    if devices < 1:
        raise VPGCError(f"A training takes one device or more, not {devices}: give --devices 1.")
    processes = backend.launched()
    if processes > 1:
        if devices not in (1, processes):
            raise VPGCError(
                f"torchrun started {processes} processes for {devices} devices: give it "
                f"--nproc-per-node {devices}, or leave --devices out."
            )
        return processes
    there = backend.device_count()
    if devices > there:
        raise VPGCError(
            f"{devices} devices were asked for, but this backend finds {there} here: give "
            f"--devices {there}."
        )
    return devices


def check_division(devices: int, recipe):
    """Refuse a recipe that several devices cannot train by.

    Args:
        devices: Number of devices.
        recipe: A `keras_vpgc.config.Recipe`.

    Raises:
        VPGCError: naming the setting and the sizes that can.
    """
    if devices > 1 and recipe.accumulate > 1 and not backend.accumulates_on_devices():
        raise VPGCError(
            f"accumulate={recipe.accumulate} works on one device only with TensorFlow: leave it "
            "out (several devices hold larger batches), or choose JAX or PyTorch."
        )
    pair = 2 if recipe.temporal_weight else 1
    for key, unit in (("batch_size", devices), ("driver_batch_size", devices * pair)):
        size = getattr(recipe, key)
        if devices > 1 and size % unit:
            lower = size // unit * unit
            ways = f"{lower} or {lower + unit}" if lower else str(unit)
            pairs = ", whole pairs of frames each" if unit > devices else ""
            raise VPGCError(
                f"{key}={size} cannot be divided among {devices} devices{pairs}: choose {ways}."
            )


def train_in_processes(count: int, job: dict):
    """`train_puppet(**job)` in as many processes, which average their gradients.

    Args:
        count: Number of processes.
        job: JSON-able arguments.

    Raises:
        VPGCError: what one of them raised; if one ends in another way all are ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        threads = max(1, (os.cpu_count() or 1) // count)
        shared = {
            "OMP_NUM_THREADS": str(threads),  # else each takes all cores
            **os.environ,
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "keras_vpgc.training.devices", str(file)],
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                # Its end tells them of this process's end.
                stdin=subprocess.PIPE,
            )
            for rank in range(count)
        ]
        try:
            while any(p.poll() is None for p in processes):
                if any(p.returncode for p in processes):
                    time.sleep(1.0)  # the others may say the same
                    break
                time.sleep(0.2)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()
        for rank in range(count):
            said = Path(f"{file}.{rank}")
            if said.exists():
                raise VPGCError(said.read_text())
        codes = [p.returncode for p in processes]
        if any(codes):
            raise VPGCError(
                f"A training process ended before its work was done (exit codes {codes}); what it "
                "printed says why, and the same command goes on from the last checkpoint."
            )


def _end_with_parent():
    # Not by `sys.stdin`, whose lock a thread may not hold at the interpreter's end.
    while os.read(0, 1):
        pass
    os._exit(1)


def main(file):
    """One of the processes of `train_in_processes`."""
    from keras_vpgc.training.recipes import train_puppet

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        train_puppet(**json.loads(Path(file).read_text()))
    except VPGCError as error:
        Path(f"{file}.{os.environ['RANK']}").write_text(str(error))
        # The others may wait for this one, so it does not take leave of them.
        os._exit(1)
    except KeyboardInterrupt:
        os._exit(130)
    except Exception:
        # Where another one has said why it ended, that this one misses it says nothing more.
        time.sleep(0.5)
        if list(Path(file).parent.glob("job.json.*")):
            os._exit(1)
        raise


if __name__ == "__main__":
    main(sys.argv[1])
