"""The swarm: a goal becomes a graph of tasks, replies become decisions. Pure Python: no actor framework here."""
