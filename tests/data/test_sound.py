from fractions import Fraction

import av
import numpy as np
import pytest

from keras_vpgc.data.sound import add_sound
from keras_vpgc.data.video import VideoWriter, probe

pytestmark = pytest.mark.once

RATE = 44100


@pytest.fixture
def silent(tmp_path):
    with VideoWriter(tmp_path / "silent.mp4", 25) as video:
        for i in range(30):
            video.write(np.full((64, 64, 3), 8 * i, "uint8"))
    return tmp_path / "silent.mp4"


def speaking(path, late=0.0, channels=1):
    """Two seconds of pictures, and a click one second after the first; the sound begins late."""
    layout = "mono" if channels == 1 else "stereo"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("ffv1", rate=Fraction(25))
        picture.height = picture.width = 64
        picture.pix_fmt = "bgr0"
        sound = container.add_stream("pcm_s16le", rate=RATE, layout=layout)
        samples = np.zeros((round((2 - late) * RATE), channels), "int16")
        samples[round((1 - late) * RATE)] = 30000
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, "uint8"), format="rgb24")
            container.mux(picture.encode(frame.reformat(format="bgr0")))
        container.mux(picture.encode())
        for start in range(0, len(samples), 1000):
            part = samples[start : start + 1000]
            frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round(late * RATE) + start
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def heard(path):
    """Second of the click, channels, and seconds of sound."""
    with av.open(str(path)) as container:
        frames = [(x.time, x.to_ndarray()) for x in container.decode(audio=0)]
    samples = np.concatenate([x for _, x in frames], axis=1)
    click = np.abs(samples[0]).argmax() / RATE
    return frames[0][0] + click, len(samples), samples.shape[1] / RATE


@pytest.mark.parametrize("late", [0.0, 0.3])
@pytest.mark.parametrize("start", [0.0, 0.52])
def test_sound_is_where_the_picture_is(silent, tmp_path, start, late):
    source = speaking(tmp_path / "source.mkv", late)
    assert add_sound(silent, source, tmp_path / "both.mp4", start)
    info = probe(tmp_path / "both.mp4")
    assert info.has_sound and info.frame_count == 30 and info.duration == pytest.approx(1.2)
    click, channels, seconds = heard(tmp_path / "both.mp4")
    # Matroska's stamps are whole milliseconds; it ends with a whole frame of 1024 samples.
    assert click == pytest.approx(1 - start, abs=2e-3) and channels == 1
    assert 0 <= seconds - 1.2 < 0.03


def test_stereo_stays_stereo(silent, tmp_path):
    assert add_sound(silent, speaking(tmp_path / "s.mkv", channels=2), tmp_path / "both.mp4")
    assert heard(tmp_path / "both.mp4")[1] == 2


def test_sources_without_sound_write_nothing(silent, tmp_path):
    assert not add_sound(silent, silent, tmp_path / "both.mp4")
    assert not (tmp_path / "both.mp4").exists()


def test_sound_of_what_is_left_out_is_left_out(silent, tmp_path):
    """A click at 1 s, of which the 0.4 s before 0.6 s are cut."""
    source = speaking(tmp_path / "source.mkv")
    spans = [(0.1, 0.2), (0.6, 1.7)]
    assert add_sound(silent, source, tmp_path / "both.mp4", spans=spans)
    click, _, seconds = heard(tmp_path / "both.mp4")
    assert click == pytest.approx(0.1 + 0.4, abs=2e-3) and 0 <= seconds - 1.2 < 0.03
    # Cut within the click's span, it is not heard.
    assert add_sound(silent, source, tmp_path / "none.mp4", spans=[(0.0, 0.9), (1.1, 1.4)])
    with av.open(str(tmp_path / "none.mp4")) as container:
        loudest = max(np.abs(x.to_ndarray()).max() for x in container.decode(audio=0))
    assert loudest < 1e-3


def test_metadata_of_the_picture_are_kept(tmp_path):
    wanted = {"title": "Silent", "digitalsourcetype": "x"}
    with VideoWriter(tmp_path / "silent.mp4", 25, metadata=wanted) as video:
        for _ in range(30):
            video.write(np.zeros((64, 64, 3), "uint8"))
    source = speaking(tmp_path / "source.mkv")
    assert add_sound(tmp_path / "silent.mp4", source, tmp_path / "both.mp4")
    with av.open(str(tmp_path / "both.mp4")) as container:
        assert container.metadata.items() >= wanted.items()


def test_damaged_sound_is_kept_around_the_damage(silent, tmp_path):
    source = speaking(tmp_path / "source.mkv")
    assert add_sound(silent, source, tmp_path / "aac.mp4")
    data = bytearray((tmp_path / "aac.mp4").read_bytes())
    with av.open(str(tmp_path / "aac.mp4")) as container:
        packets = [(p.pos, p.size) for p in container.demux(audio=0) if p.size]
    place, size = packets[10]
    data[place : place + size] = b"\xff" * size
    (tmp_path / "damaged.mp4").write_bytes(data)
    assert add_sound(silent, tmp_path / "damaged.mp4", tmp_path / "both.mp4")
    assert heard(tmp_path / "both.mp4")[0] == pytest.approx(1, abs=3e-3)
