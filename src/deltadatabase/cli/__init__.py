"""The programs: arguments, wiring, what people read."""
