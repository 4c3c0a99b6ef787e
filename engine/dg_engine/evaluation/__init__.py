"""How good a checkpoint is at infill: held-out cases, metrics, one harness for every way of decoding, a report."""
