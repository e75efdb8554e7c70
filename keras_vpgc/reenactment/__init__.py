"""Driving a puppet."""

from keras_vpgc.reenactment.provenance import Provenance
from keras_vpgc.reenactment.puppet import Puppet
from keras_vpgc.reenactment.reenact import reenact
from keras_vpgc.reenactment.verification import Verification, verify

__all__ = ["Provenance", "Puppet", "Verification", "reenact", "verify"]
