"""The gate for what goes out: every public output is reviewed here, and there is no second way out."""
