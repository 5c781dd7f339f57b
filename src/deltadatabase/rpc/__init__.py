"""What travels between main worker and proc worker, and how: messages, errors, channels, stream."""
