"""What a directory holds after a crash between any two system calls."""
