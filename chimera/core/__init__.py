"""The ground floor: types, errors, settings and small pure helpers. Standard library and pydantic only."""
