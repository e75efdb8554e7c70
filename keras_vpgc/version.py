"""The version, in one place."""

__version__ = "0.1.0"
# Of the metadata in a puppet.keras.
PUPPET_SCHEMA_VERSION = 2
