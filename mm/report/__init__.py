"""Cards, tables and drawings: what a model, a run or the source tree looks like."""
