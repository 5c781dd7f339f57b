"""The main worker's outside: REST, routing to workers, and the control plane that they join."""
