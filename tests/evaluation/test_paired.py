import numpy as np
import pytest

from keras_vpgc.evaluation import bootstrap_interval
from keras_vpgc.evaluation.paired import paired_differences, paired_table

pytestmark = pytest.mark.once


def test_a_small_difference_on_hard_frames_is_told_apart(rng):
    # Frames differ far more than the systems do.
    hard = 5 * np.sin(np.arange(300) / 20)
    scores = {
        "ours": {"psnr": 30.2 + hard + rng.normal(0, 0.1, 300)},
        "theirs": {"psnr": 30.0 + hard + rng.normal(0, 0.1, 300)},
    }
    own = [bootstrap_interval(x["psnr"]) for x in scores.values()]
    assert own[0][0] < own[1][1]
    (pair,) = paired_differences(scores)
    row = pair["scores"]["psnr"]
    assert (pair["first"], pair["second"]) == ("ours", "theirs")
    difference = scores["ours"]["psnr"] - scores["theirs"]["psnr"]
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["interval"] == pytest.approx(bootstrap_interval(difference))
    assert row["better"] == "ours" and row["interval"][0] > 0
    assert "ours is better by 0.197 [0.1" in row["words"] and "excludes 0" in row["words"]


def test_lower_is_better_for_distances_and_noise_is_not_told_apart(rng):
    wave = 2 + np.sin(np.arange(200) / 9)
    scores = {
        "a": {"lpips": wave + 1, "flicker": rng.normal(size=199), "jitter": wave},
        "b": {"lpips": wave, "flicker": rng.normal(size=199), "jitter": wave + 1},
    }
    (pair,) = paired_differences(scores)
    assert pair["scores"]["lpips"]["better"] == "b"
    assert pair["scores"]["lpips"]["words"].startswith("b is better by 1 [1, 1]")
    row = pair["scores"]["flicker"]
    assert row["better"] is None and row["interval"][0] < 0 < row["interval"][1]
    assert "not told apart" in row["words"] and "holds 0" in row["words"]
    # Of jitter it is not known what is better.
    assert "jitter" not in pair["scores"]


def test_only_frames_that_both_have_count():
    first, second = np.full(60, 31.0), np.full(60, 30.0)
    first[:10], second[20:30] = np.nan, np.inf
    scores = {"a": {"psnr": first}, "b": {"psnr": second}, "c": {"psnr": np.full(60, np.nan)}}
    pairs = paired_differences(scores)
    assert [(x["first"], x["second"]) for x in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs[0]["scores"]["psnr"]["frames"] == 40
    assert pairs[0]["scores"]["psnr"]["difference"] == 1
    assert pairs[1]["scores"] == pairs[2]["scores"] == {}


def test_short_clips_and_equal_systems_in_words():
    short = {"a": {"psnr": np.full(9, 31.0)}, "b": {"psnr": np.full(9, 30.0)}}
    pairs = paired_differences(short)
    row = pairs[0]["scores"]["psnr"]
    assert row["interval"] is None and row["better"] is None
    assert row["words"] == "a is ahead by 1: the clip is too short for an interval"
    assert f"| a - b | PSNR (dB) ↑ | {row['words']} | 9 |" in paired_table(pairs)
    pairs = paired_differences({"a": short["a"], "b": short["a"]})
    assert pairs[0]["scores"]["psnr"]["words"] == "a and b are equal"
    assert paired_differences({"a": short["a"]}) == [] and paired_table([]) == ""
