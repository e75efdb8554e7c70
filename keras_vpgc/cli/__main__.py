"""`python -m keras_vpgc.cli`, the same as `vpgc`."""

from keras_vpgc.cli import main

main()
