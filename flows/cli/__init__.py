"""The command line `xmore`: modules of commands, and what they do that no flow does."""
