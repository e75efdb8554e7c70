"""Fused attention of one device and of two: values and gradients into a file."""

import sys

import jax
import keras
import numpy as np

from keras_vpgc import backend
from keras_vpgc.backend import jax as kernels

# What a GPU takes, by its twin of the processor.
own = kernels._attend
jax.default_backend = lambda: "gpu"
kernels._attend = lambda q, k, d, way: own(q, k, d, "xla")


def main(target):
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(6, 256, 4)).astype("float32")
    keys = rng.normal(size=(6, 128, 4)).astype("float32")
    results = {}
    for count in (1, 2):
        with backend.distributed(count):

            def loss(queries, keys):
                found = backend.attend(queries, keys, "bfloat16")
                return (found**2 * np.arange(256)[:, None]).sum(), found

            queries_there = jax.device_put(queries)
            if count == 2:
                mesh = keras.distribution.distribution().device_mesh.backend_mesh
                parts = jax.sharding.PartitionSpec(None, "batch")
                place = jax.sharding.NamedSharding(mesh, parts)
                queries_there = jax.device_put(queries, place)
            step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
            (_, found), grads = step(queries_there, keys)
            results[f"parts_{count}"] = len(found.sharding.device_set)
            for name, value in zip(("found", "queries", "keys"), (found, *grads), strict=True):
                results[f"{name}_{count}"] = np.asarray(value, "float32")
            # Queries that cannot be divided into whole blocks are for another way.
            results[f"odd_{count}"] = backend.attend(queries[:, :64], keys, "bfloat16") is None
    with backend.distributed(2):
        layer = keras.layers.Dense(3)
        model = keras.Sequential([keras.Input((4,)), layer])
    # Behind the training its weights still lie on both.
    x = np.ones((2, 4), "float32")
    results["dense"] = np.asarray(backend.compiled(model)(x))
    results["wanted"] = x @ np.asarray(layer.kernel)
    np.savez(target, **results)


if __name__ == "__main__":
    main(sys.argv[1])
