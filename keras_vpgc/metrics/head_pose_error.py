"""Difference between head poses."""

import numpy as np

from keras_vpgc.errors import VPGCError


def head_pose_error(true_matrices, predicted_matrices) -> np.ndarray:
    """Angle of the rotation that takes one head's orientation to the other's.

    Args:
        true_matrices: Float `(n, 4, 4)` or `(n, 3, 3)`, such as a track's `matrices`; a scale in
            them does not count. NaN where the detector failed.
        predicted_matrices: The same.

    Returns:
        Float64 `(n,)`, degrees in [0, 180]; NaN where a matrix holds NaN.

    Raises:
        VPGCError: if the shapes differ or are no matrices.

    Example:

    ```python
    np.nanmean(head_pose_error(true_track.matrices, predicted_track.matrices))
    ```

    References:
        Huynh, "Metrics for 3D Rotations: Comparison and Analysis", JMIV 2009 (its angle of
        `R1 R2^T`).
    """
    true, predicted = (np.asarray(x, "float64") for x in (true_matrices, predicted_matrices))
    if true.shape != predicted.shape or true.ndim != 3 or true.shape[1:] not in ((3, 3), (4, 4)):
        raise VPGCError(
            "Head poses are two arrays of matrices (n, 4, 4) or (n, 3, 3); received "
            f"{true.shape} and {predicted.shape}."
        )
    result = np.full(len(true), np.nan)
    known = np.isfinite(true).all((1, 2)) & np.isfinite(predicted).all((1, 2))
    turn = _rotations(true[known]) @ _rotations(predicted[known]).transpose(0, 2, 1)
    # By sine and cosine: the arc cosine alone is inexact for small angles.
    odd = turn - turn.transpose(0, 2, 1)
    sine = 0.5 * np.sqrt(odd[:, 2, 1] ** 2 + odd[:, 0, 2] ** 2 + odd[:, 1, 0] ** 2)
    cosine = 0.5 * (np.trace(turn, axis1=1, axis2=2) - 1)
    result[known] = np.degrees(np.arctan2(sine, cosine))
    return result


def _rotations(matrices):
    """The nearest rotations."""
    u, _, vt = np.linalg.svd(matrices[:, :3, :3])
    sign = np.ones((len(u), 3))
    sign[:, 2] = np.linalg.det(u @ vt)
    return (u * sign[:, None, :]) @ vt
