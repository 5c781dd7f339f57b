"""What an operator does beside the running service: scrub a store, and examine it (``doctor``)."""
