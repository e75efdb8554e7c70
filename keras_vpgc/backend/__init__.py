"""What differs between the backends: one file a backend, the same functions in each.

`vjp`, `value_and_grad`, `train_step`, `record_steps`, `release_steps`, `test_step`, `compiled`,
`full_precision`, `jit_by_default`; those on weights (`adam_class`, `move_towards`, `swap`), on
several devices (`device_count`, `device_names`, `distributed`,
`process`, `one_process_a_device`, `launched`, `accumulates_on_devices`, `agree`, `wait`,
`average_gradients`, `mean_over_devices`, `share`), on memory (`out_of_memory`,
`after_out_of_memory`, `free_memory`), `noise`, and on where arrays lie (`to_device`, `take`,
`to_host`, `keeps_device_batches`, `jitted`, `on_host`, `half_by_default`); what layers let
kernels do where there are any (`group_norm`, `draw_lines`, `attend`; `None` where there is none),
`fuses` and `kept`; and files for other runtimes (`write_export`, `read_export`); each file's
docstrings say what they promise.
"""

import importlib

import keras

from keras_vpgc.errors import VPGCError

_NAME = keras.backend.backend()
if _NAME not in ("jax", "tensorflow", "torch"):
    raise VPGCError(
        f"keras_vpgc cannot train on the Keras backend {_NAME!r}: set KERAS_BACKEND to jax, "
        "tensorflow or torch."
    )
_module = importlib.import_module(f"keras_vpgc.backend.{_NAME}")

vjp = _module.vjp
value_and_grad = _module.value_and_grad
train_step = _module.train_step
record_steps = _module.record_steps
release_steps = _module.release_steps
test_step = _module.test_step
compiled = _module.compiled
full_precision = _module.full_precision
jit_by_default = _module.jit_by_default
adam_class = _module.adam_class
move_towards = _module.move_towards
swap = _module.swap
average_gradients = _module.average_gradients
mean_over_devices = _module.mean_over_devices
share = _module.share
device_count = _module.device_count
device_names = _module.device_names
process = _module.process
one_process_a_device = _module.one_process_a_device
launched = _module.launched
distributed = _module.distributed
accumulates_on_devices = _module.accumulates_on_devices
agree = _module.agree
wait = _module.wait
out_of_memory = _module.out_of_memory
after_out_of_memory = _module.after_out_of_memory
to_device = _module.to_device
take = _module.take
free_memory = _module.free_memory
noise = _module.noise
keeps_device_batches = _module.keeps_device_batches
jitted = _module.jitted
on_host = _module.on_host
to_host = _module.to_host
half_by_default = _module.half_by_default
group_norm = _module.group_norm
draw_lines = _module.draw_lines
attend = _module.attend
fuses = _module.fuses
kept = _module.kept
write_export = _module.write_export
read_export = _module.read_export

__all__ = [
    "accumulates_on_devices",
    "adam_class",
    "after_out_of_memory",
    "agree",
    "attend",
    "average_gradients",
    "compiled",
    "device_count",
    "device_names",
    "distributed",
    "draw_lines",
    "free_memory",
    "fuses",
    "group_norm",
    "half_by_default",
    "jit_by_default",
    "jitted",
    "keeps_device_batches",
    "kept",
    "launched",
    "mean_over_devices",
    "move_towards",
    "noise",
    "on_host",
    "one_process_a_device",
    "out_of_memory",
    "process",
    "read_export",
    "share",
    "swap",
    "take",
    "test_step",
    "to_device",
    "to_host",
    "train_step",
    "value_and_grad",
    "vjp",
    "wait",
    "write_export",
]
