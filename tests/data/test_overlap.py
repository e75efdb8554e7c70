import threading
import time

import pytest

from keras_vpgc.data.overlap import Behind, ahead

pytestmark = pytest.mark.once


def test_items_are_made_ahead_but_not_too_far():
    made = []
    closed = threading.Event()

    def items():
        try:
            for k in range(100):
                made.append(k)
                yield k
        finally:
            closed.set()

    reader = ahead(items(), depth=3)
    assert [next(reader) for _ in range(5)] == list(range(5))
    time.sleep(0.2)
    # Three wait, and one is in the hand.
    assert 6 <= len(made) <= 10
    reader.close()
    assert closed.is_set() and len(made) <= 10
    assert list(ahead(range(20), depth=2)) == list(range(20))
    assert list(ahead([])) == []


def test_errors_come_at_their_place():
    def items():
        yield 1
        yield 2
        raise ZeroDivisionError("three")

    seen = []
    with pytest.raises(ZeroDivisionError, match="three"):
        for item in ahead(items()):
            seen.append(item)
    assert seen == [1, 2]


def test_calls_are_made_in_order_and_errors_said():
    done = []
    with Behind(done.append, depth=2) as call:
        for k in range(50):
            call(k)
    assert done == list(range(50))

    def refuse(k):
        if k == 3:
            raise OSError("full")
        done.append(k)

    done.clear()
    with pytest.raises(OSError, match="full"), Behind(refuse, depth=2) as call:
        for k in range(1000):
            call(k)
    assert done == [0, 1, 2]
    # The first error is the one that is said.
    with pytest.raises(KeyboardInterrupt), Behind(refuse) as call:
        call(3)
        raise KeyboardInterrupt
