import itertools

import numpy as np
import pytest

from keras_vpgc import VPGCError
from keras_vpgc.data import crop as crops
from keras_vpgc.data.crop import Crop
from keras_vpgc.data.prepare import track_clip
from keras_vpgc.data.video import VideoWriter, read_frames
from keras_vpgc.reenactment import Puppet
from keras_vpgc.reenactment.compositor import frames_at, make_compositor

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def puppet(run):
    return Puppet.load(run)


@pytest.fixture(scope="module")
def driving(clip, portrait, puppet):
    """The clip's first 20 frames: its landmarks in the puppet's crop and its track."""
    track = track_clip(clip, end=0.8, workers=1, progress=False)
    info = (256, 256)
    return puppet.landmarks_of(track, info, retargeting="none"), track


@pytest.fixture(scope="module")
def wide(clip, tmp_path_factory):
    """The clip with a wall on its right, 320x256."""
    path = tmp_path_factory.mktemp("wide") / "wide.mp4"
    with VideoWriter(path, 25) as writer:
        for frame in read_frames(clip, 0, 20):
            writer.write(np.pad(frame, ((0, 0), (0, 64), (0, 0)), mode="edge"))
    return path


def composed(compositor, images, first=0):
    sources = compositor.source_frames(np.arange(first, len(compositor.numbers)))
    return [
        compositor.frame(k, images[k], source)
        for k, source in zip(range(first, len(images)), sources, strict=False)
    ]


def test_own_person_comes_back_into_the_own_crop(puppet, driving, clip):
    landmarks, track = driving
    crop = Crop(**puppet.metadata["crop"])
    truth = list(read_frames(clip, 0, 20))
    # What a perfect puppet would show.
    images = [crops.apply(frame, crop, puppet.size) for frame in truth]
    compositor = make_compositor(
        puppet, clip, landmarks, track, end=0.8, place="auto", match_colours=False
    )
    assert compositor.size == (256, 256) and compositor.channels == 3
    assert compositor.paste.region == "crop"
    result = composed(compositor, images)
    assert len(result) == 20
    assert np.abs(result[7].astype(int) - truth[7]).mean() < 4
    # Wherever a job is begun again.
    np.testing.assert_array_equal(composed(compositor, images, 12), result[12:])


def test_plans_are_the_same_again(puppet, driving, clip):
    landmarks, track = driving
    images = puppet.drive(landmarks)
    results = []
    for _ in range(2):
        compositor = make_compositor(puppet, clip, landmarks, track, end=0.8, place="auto")
        results.append(composed(compositor, images, 15))
    np.testing.assert_array_equal(*results)
    # An untrained puppet is one tone; it takes the frame's own.
    crop = Crop(**puppet.metadata["crop"])
    truth = next(read_frames(clip, 15, 16))
    inside = crops.apply(truth, crop, 64).mean(axis=(0, 1))
    shown = crops.apply(results[0][0], crop, 64).mean(axis=(0, 1))
    before = images[15].mean(axis=(0, 1))
    assert np.abs(shown - inside).max() < max(12, 0.3 * np.abs(before - inside).max())


def test_other_face_is_covered(puppet, driving, clip):
    landmarks, track = driving
    other = 0.5 + 0.8 * (landmarks - 0.5)
    compositor = make_compositor(puppet, clip, other, track, end=0.8, place="auto")
    assert compositor.paste.region == "face"
    truth = list(read_frames(clip, 0, 20))
    result = composed(compositor, puppet.drive(other))
    face = track.points[9, :, :2]
    nose = tuple(np.rint(face[4]).astype(int)[::-1])
    difference = np.abs(result[9].astype(int) - truth[9]).sum(axis=-1)
    assert difference[nose[0] - 10 : nose[0] + 10, nose[1] - 10 : nose[1] + 10].mean() > 10
    away = np.ones((256, 256), bool)
    low, high = face.min(axis=0).astype(int) - 20, face.max(axis=0).astype(int) + 20
    away[low[1] : high[1], low[0] : high[0]] = False
    assert difference[away].max() == 0


def test_dubbing_runs_to_and_fro(puppet, driving, clip, wide):
    landmarks, track = driving
    with pytest.warns(UserWarning, match="wide.mp4 is not the video that the puppet was made from"):
        compositor = make_compositor(
            puppet, clip, landmarks, track, end=0.8, place="auto", into=wide, into_start=0.4
        )
    assert compositor.size == (320, 256) and compositor.paste.region == "crop"
    np.testing.assert_array_equal(compositor.numbers, [*range(10, 20), *range(19, 9, -1)])
    truth = list(read_frames(wide))
    result = composed(compositor, puppet.drive(landmarks))
    for k in (0, 9, 10, 19):
        # The wall is the source's own at that time.
        np.testing.assert_array_equal(result[k][:, 260:], truth[compositor.numbers[k]][:, 260:])
    with pytest.raises(VPGCError, match="lasts 0.80 s and has no frame at second 3: choose"):
        make_compositor(
            puppet, clip, landmarks, track, end=0.8, place="crop", into=wide, into_start=3
        )


def test_frames_in_any_order(clip):
    truth = list(read_frames(clip))
    numbers = [3, 4, 4, 6, 74, 73, 70, 2, *range(60, 5, -1), 0, 0, 1]
    for number, frame in zip(numbers, frames_at(clip, numbers), strict=True):
        np.testing.assert_array_equal(frame, truth[number])


def test_picture_by_itself_before_another_background(puppet, driving, clip, portrait):
    landmarks, track = driving
    images = portrait.frames(np.arange(6))
    alone = make_compositor(puppet, clip, landmarks, track, end=0.8)
    assert alone.size == (64, 64) and alone.warm_up == 0
    assert next(alone.source_frames()) is None
    np.testing.assert_array_equal(alone.frame(3, images[3]), images[3])
    with make_compositor(puppet, clip, landmarks, track, end=0.8, background="alpha") as cut:
        assert cut.channels == 4
        whole = [cut.frame(k, image) for k, image in enumerate(images)]
        assert whole[0].shape == (64, 64, 4)
        assert whole[0][..., 3].max() == 255 and whole[0][..., 3].min() == 0
    with make_compositor(puppet, clip, landmarks, track, end=0.8, background="alpha") as cut:
        for k in range(5 - cut.warm_up, 5):
            cut.see(k, images[k])
        np.testing.assert_array_equal(cut.frame(5, images[5]), whole[5])


def test_refusals(puppet, driving, clip):
    landmarks, track = driving
    with pytest.raises(VPGCError, match="no place 'head': choose one of none, auto, crop, face"):
        make_compositor(puppet, clip, landmarks, track, place="head")
    for place in ("none", "face"):
        with pytest.raises(VPGCError, match=f"'crop' or 'auto' for that, not '{place}'"):
            make_compositor(puppet, clip, landmarks, track, place=place, into=clip)
    assert list(itertools.islice(frames_at(clip, []), 1)) == []
