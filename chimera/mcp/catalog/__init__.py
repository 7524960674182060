"""The catalog: of all the tools that servers offer, the few that a task needs."""
