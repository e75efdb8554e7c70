"""Difference between facial expressions."""

import numpy as np

from keras_vpgc.errors import VPGCError


def expression_error(true_blendshapes, predicted_blendshapes) -> np.ndarray:
    """Mean absolute difference of blendshapes.

    Args:
        true_blendshapes: Float `(n, 52)` in [0, 1], such as a track's `blendshapes`; NaN where the
            detector failed.
        predicted_blendshapes: The same.

    Returns:
        Float64 `(n,)` in [0, 1]; NaN where a blendshape is NaN.

    Raises:
        VPGCError: if the shapes differ.

    Example:

    ```python
    np.nanmean(expression_error(true_track.blendshapes, predicted_track.blendshapes))
    ```
    """
    true, predicted = (np.asarray(x, "float64") for x in (true_blendshapes, predicted_blendshapes))
    if true.shape != predicted.shape or true.ndim != 2:
        raise VPGCError(
            "Expressions are two arrays of blendshapes (n, 52); received "
            f"{true.shape} and {predicted.shape}."
        )
    return np.abs(true - predicted).mean(axis=1)
