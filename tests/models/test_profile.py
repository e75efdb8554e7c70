import numpy as np
import pytest

from keras_vpgc.models import PortraitReenactor
from keras_vpgc.models.profile import exponentials, profile, table
from keras_vpgc.models.work import count

pytestmark = pytest.mark.once


def build(**settings):
    return PortraitReenactor.from_preset("vpgc_tiny", **settings)


def test_blocks_are_the_whole_model():
    model = build()
    *blocks, whole = profile(model, repeats=0)
    assert sum(b.work.flops for b in blocks) == whole.work.flops == count(model).flops
    assert sum(b.parameters for b in blocks) == whole.parameters == model.count_params()
    assert whole.shape == (64, 64, 3)
    parts = list(dict.fromkeys(b.part for b in blocks))
    assert parts == ["heatmap", "driver_encoder", "driver_head", "soft_index", "decoder"]
    names = [b.name for b in blocks if b.part == "decoder"]
    assert names == ["first", "middle", "2 at 16", "1 at 32", "0 at 64", "norm", "last"]
    lines = table([*blocks, whole]).splitlines()
    assert len(lines) == len(blocks) + 2 and lines[-1].split()[:2] == ["all", "64x64x3"]


def test_work_is_that_of_the_products():
    """A convolution is 2 k k c f h w operations, a soft index 4 h w d r r K_c."""
    blocks = {(b.part, b.name): b for b in profile(build(), repeats=0)}
    assert blocks["decoder", "last"].work.flops == 2 * 9 * 16 * 3 * 64 * 64
    assert blocks["soft_index", ""].work.flops == 4 * 256 * 32 * 16 * 16
    assert exponentials(build()) == 256 * 8 * 16 * 16
    assert exponentials(build(mode="hard")) == 0
    light = {"block": "separable", "stride": 2, "multipliers": (1, 2), "num_blocks": 1}
    blocks = {(b.part, b.name): b for b in profile(build(**light), repeats=0)}
    # The pixels of a position share one pass: 2 x 2 x 3 channels at 32 x 32.
    assert blocks["decoder", "last"].work.flops == 2 * 9 * 16 * 12 * 32 * 32
    # 3x3 by channel, 1x1 to twice as many and back; no upsampling behind the last level.
    assert blocks["decoder", "0 at 32"].work.flops == 2 * (9 * 16 + 2 * 16 * 32) * 32 * 32


def test_every_block_is_timed():
    blocks = profile(build(num_blocks=1, transformer_blocks=1), repeats=1)
    times = np.array([b.milliseconds for b in blocks])
    assert (times > 0).all() and len(blocks) > 15


def test_command_knows_presets_runs_and_what_is_neither(vpgc, run):
    code, out, _ = vpgc("profile", "vpgc_tiny", "--repeats", 0, "--set", "window_size=2")
    assert code == 0 and "decoder" in out and "GFLOP" in out
    assert "0.1 million exponentials" in out
    code, out, _ = vpgc("profile", run, "--repeats", 1)
    assert code == 0 and "the fastest of 1 calls" in out
    code, _, err = vpgc("profile", "vpgc_9")
    assert code == 1 and "no preset and no file 'vpgc_9'" in err and "vpgc_512_lite" in err
    code, _, err = vpgc("profile", run, "--set", "window_size=2")
    assert code == 1 and "only a preset's settings can be changed" in err
