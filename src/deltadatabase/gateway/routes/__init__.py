"""The ordinary REST routes, one file per resource. Each builds its handlers around what it needs."""
