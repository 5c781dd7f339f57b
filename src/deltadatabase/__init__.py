"""DeltaDatabase: a JSON document database, encrypted at rest, that runs on nothing but an object store."""

__version__ = "0.1.0"
