"""New code into a running process: versions of modules and tools side by side, and a pointer to the one in use."""
