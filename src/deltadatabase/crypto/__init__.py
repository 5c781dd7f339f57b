"""Keys and sealed entities: byte layout, sealing and opening, keyring, key transport."""
