"""Reading a memory: snapshots, rows, search, captions and leaks."""
