"""The command line `xmore`: modules of commands, and the work that only commands do."""
