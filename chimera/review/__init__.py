"""Review: what software is not sure enough of, or must not decide alone, waits here for a person."""
