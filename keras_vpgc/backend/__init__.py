"""What differs between the backends: one file a backend, the same functions in each.

move_towards = _module.move_towards
swap = _module.swap
average_gradients = _module.average_gradients
mean_over_devices = _module.mean_over_devices
share = _module.share
out_of_memory = _module.out_of_memory
to_device = _module.to_device
take = _module.take
free_memory = _module.free_memory
keeps_device_batches = _module.keeps_device_batches
jitted = _module.jitted
on_host = _module.on_host

__all__ = [
    "average_gradients",
    "free_memory",
    "jitted",
    "keeps_device_batches",
    "mean_over_devices",
    "move_towards",
    "on_host",
    "out_of_memory",
    "share",
    "swap",
    "take",
    "to_device",
]
