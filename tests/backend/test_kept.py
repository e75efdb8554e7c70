"""What JAX compiles for accelerators is kept between runs."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

PROGRAM = """
import sys, jax
from keras_vpgc.backend import jax as backend

backend.KEPT_BYTES = int(sys.argv[2])
backend._keep_compiled()
assert not jax.config.jax_compilation_cache_dir  # nothing is kept for a processor
backend.keep_compiled(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8))))
"""


def run(folder, most=10**9):
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", PROGRAM, folder, str(most)]
    subprocess.run(command, check=True, env={**env, "KERAS_BACKEND": "jax"})
    return {x.name: x.stat().st_mtime_ns for x in folder.iterdir() if x.name.endswith("-cache")}


@pytest.mark.slow
def test_programs_are_kept_and_found_again_until_there_are_too_many(tmp_path):
    folder = tmp_path / "kept" / "xla"
    first = run(folder)
    assert first
    assert run(folder) == first
    old = folder / "old-cache"
    old.write_bytes(b"0" * 1000)
    os.utime(old, (0, 0))
    assert run(folder).keys() == {*first, "old-cache"}
    most = sum((folder / name).stat().st_size for name in first) + 500
    assert run(folder, most).keys() == first.keys()


def test_a_place_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    program = PROGRAM.replace(
        "jax.config.update", "assert not jax.config.jax_compilation_cache_dir #"
    )
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", program, tmp_path / "file" / "xla", "1"]
    subprocess.run(command, check=True, env={**env, "KERAS_BACKEND": "jax"})


@pytest.mark.slow
def test_a_program_handed_over_as_graphs_is_compiled_anew_in_each_process(tmp_path):
    program = PROGRAM + (
        "from keras_vpgc.backend import jax_programs\n"
        "jax.default_backend, jax_programs.GPU_OPTIONS = lambda: 'gpu', {}\n"
        "weights, x = jax.numpy.ones((8, 8)), jax.numpy.ones(8)\n"
        "constants, call = jax_programs.freeze(lambda w, x: (2 * w) @ x, weights, x)\n"
        "assert (call(constants, x) == 16).all()\n"
        "print(jax.jit(lambda x: x - 1)(x))\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", program, tmp_path, str(10**9)]
    subprocess.run(command, check=True, env={**env, "KERAS_BACKEND": "jax"})
    names = [file.name for file in tmp_path.iterdir() if file.name.endswith("-cache")]
    assert not any(name.startswith("jit_program-") for name in names)
    assert len([name for name in names if name.startswith("jit__lambda-")]) >= 3, names
