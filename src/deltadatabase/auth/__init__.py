"""Who may do what: keys and sessions of clients, admission of workers, and the decisions themselves."""
