"""The soft index's fused attention on two devices of the processor, on JAX."""

import os
import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.once
@pytest.mark.slow
def test_fused_attention_is_divided_among_devices(tmp_path):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "-m", "tests.backend.divided", tmp_path / "found.npz"],
        check=True,
        env={**os.environ, "XLA_FLAGS": flags, "KERAS_BACKEND": "jax"},
    )
    found = np.load(tmp_path / "found.npz")
    assert (found["parts_1"], found["parts_2"]) == (1, 2)
    assert not found["odd_1"] and found["odd_2"]
    np.testing.assert_allclose(found["dense"], found["wanted"], rtol=1e-6)
    for name in ("found", "queries", "keys"):
        one, two = found[f"{name}_1"], found[f"{name}_2"]
        assert np.abs(one).max() > 0
        # The keys' gradient is a sum of both devices' in bfloat16.
        np.testing.assert_allclose(two, one, rtol=0.02, atol=0.02 * np.abs(one).max())
