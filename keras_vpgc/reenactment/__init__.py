"""Driving a puppet."""

from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.reenactment.reenact import reenact

__all__ = ["Puppet", "reenact"]
