"""Work of a training step, and the rates that the machine reaches; see `keras_vpgc.models.work`."""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from benchmarks import clock
from keras_vpgc.models.work import Work, count

__all__ = ["Work", "count", "floor", "image_step", "image_step_bytes", "rates"]


def image_step(autoencoder, discriminator, lpips, batch, matching=False) -> dict[str, float]:
    """Operations of a step of stage 1, by the part whose precision they have.

    LPIPS sees both images and gives a gradient to one of them. The discriminator judges the
    images three times, gives a gradient to the image once and to its weights twice. The adaptive
    weight's two gradients of a kernel are left out.

    Args:
        autoencoder, discriminator, lpips: `Work` of one sample of each.
        batch: Images of a batch.
        matching: Are the discriminator's features compared? It judges the images once more then.

    Returns:
        Operations of `"network"` and `"lpips"`.
    """
    network = autoencoder.training + 2 * discriminator.training
    network += (3 if matching else 2) * discriminator.flops
    return {"network": batch * network, "lpips": batch * 3 * lpips.flops}


def image_step_bytes(
    autoencoder, discriminator, lpips, batch, matching, precision, lpips_precision="float32"
) -> float:
    """Lower bound of the bytes that such a step moves; the arguments are those of `image_step`.

    A gradient of an input, and one of weights, moves as much as the pass forward. Adam reads
    weights, gradients and two moments of float32 and writes all but the gradients.
    """
    work = autoencoder.times(batch).bytes(precision, 3)
    work += discriminator.times(batch).bytes(precision, (3 if matching else 2) + 2 * 3)
    work += lpips.times(batch).bytes(lpips_precision, 3)
    return work + 7 * 4 * (autoencoder.weights + discriminator.weights)


def rates(tiny=False) -> dict[str, float]:
    """What this machine reaches: products of large matrices and copies of a large array.

    In a process of its own, as JAX tells the peak of a process's memory alone, and what is
    measured here takes 1.2 GiB.

    Returns:
        Operations a second of `"bfloat16"` and `"float32"` products (on a GPU as its framework
        computes convolutions of float32, in TF32), and bytes a second read and written by a
        `"copy"`.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_rates, tiny).result()


def _rates(tiny):
    side, numbers = (512, 2**22) if tiny else (8192, 2**26)
    found = {}
    for dtype in ("bfloat16", "float32"):
        product, sync = clock.product(side, dtype)
        found[dtype] = 2 * side**3 / _best(product, sync, tiny)
    copy, sync = clock.copy(numbers)
    found["copy"] = 2 * 4 * numbers / _best(copy, sync, tiny)
    return found


def floor(flops, moved, reached) -> tuple[float, float]:
    """Seconds that work takes at the rates that were measured.

    Args:
        flops: Dict of operations by the type they are computed in, as in `rates`.
        moved: Bytes.
        reached: What `rates` gave.

    Returns:
        Seconds of the products alone, and of the bytes alone.
    """
    return sum(n / reached[dtype] for dtype, n in flops.items()), moved / reached["copy"]


def _best(call, sync, tiny):
    times = []
    for _ in range(3 if tiny else 6):
        began = time.perf_counter()
        for _ in range(1 if tiny else 10):
            result = call()
        sync(result)
        times.append((time.perf_counter() - began) / (1 if tiny else 10))
    return min(times[1:])
