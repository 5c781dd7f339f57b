"""Who owns what: pure decisions about shards, members, epochs and terms."""
