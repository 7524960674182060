"""Money that agents can spend and cannot overspend: a ledger, its caps, and who has to agree."""
