"""What runs: flows that put the stages in order, and the command line that starts them."""
