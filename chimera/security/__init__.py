"""Who may do what: identity, roles, capabilities, limits, the record of it, and the gates to the outside."""
