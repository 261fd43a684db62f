"""Reading a memory: snapshots, rows, search, captions, leaks."""
