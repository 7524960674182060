"""From a brief to an item: a plan, drafts, their judges, and claims that stand in their sources."""
