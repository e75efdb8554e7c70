"""When a live stream begins with a picture, by a clock of milliseconds."""

import pytest

from keras_vpgc.reenactment.pipeline import Pace

pytestmark = pytest.mark.once


def play(tracking, network, hurry=False, interval=40, seconds=10):
    """Milliseconds of each image from its picture, images, pictures tracked, network at rest."""
    now = 0
    pace = Pace(lambda: now / 1000)
    wait = (lambda: 0) if hurry else pace.wait
    tracked = waiting = shown = None  # (number, taken at, ends at)
    ages, begun, idle, last = [], 0, 0, -1
    for now in range(1000 * seconds):
        number = now // interval
        if tracked is None and number > last and wait() <= 0:
            last, begun = number, begun + 1
            tracked = number, number * interval, now + tracking, now
            pace.begun(number)
        if tracked and now >= tracked[2]:
            pace.led((now - tracked[3]) / 1000)
            # The newest wins.
            waiting, tracked = tracked, None
        if shown and now >= shown[2]:
            pace.ended(network / 1000)
            ages.append(now - shown[1])
            shown = None
        if shown is None and waiting:
            pace.last(waiting[0])
            shown, waiting = (waiting[0], waiting[1], now + network), None
        idle += shown is None
    return ages[20:], len(ages), begun, idle / now


@pytest.mark.parametrize("tracking, network", [(39, 53), (10, 90), (20, 45), (5, 200)])
def test_no_picture_is_tracked_for_nothing(tracking, network):
    ages, images, begun, idle = play(tracking, network)
    hurried, most, wasted, _ = play(tracking, network, hurry=True)
    assert wasted == 250 and begun <= 1.05 * images + 5
    # As many images, hardly older: a picture waits for the next one before it is taken at most.
    assert idle < 0.05 and images >= 0.98 * most
    assert max(ages) <= 40 + tracking * Pace.EARLY + network + 2
    assert sum(ages) / len(ages) < sum(hurried) / len(hurried) + 42


@pytest.mark.parametrize("tracking, network", [(60, 5), (30, 10)])
def test_a_slow_tracker_never_waits(tracking, network):
    assert play(tracking, network) == play(tracking, network, hurry=True)
