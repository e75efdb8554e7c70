"""Puppets for other runtimes: ONNX Runtime, OpenVINO, LiteRT, TensorFlow and PyTorch without Keras.

A file is written by a process of a Keras backend that can write its format, whatever backend the
caller has, and is run by its own runtime and compared with Keras before it gets its name. Its
graph holds standard operators alone, no loops, and any batch size.
"""

from keras_vpgc.export.exporter import Export, export_puppet
from keras_vpgc.export.formats import FORMATS

__all__ = ["FORMATS", "Export", "export_puppet"]
