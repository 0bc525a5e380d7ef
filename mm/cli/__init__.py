"""What the scripts that look at pictures share: options, inputs, lines of output, exit status.

Results go to stdout, one line each; progress and one line for each failed input to stderr. The
status is 0, 1 when an input failed (the others are still done), or 2 on wrong usage. PyTorch is
not imported here, so that `--help` is quick.
"""
