"""A proc worker: validates, seals and commits the entities of the shards that it owns."""
