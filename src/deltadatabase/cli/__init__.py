"""The programs: arguments, composition roots, what people read."""
