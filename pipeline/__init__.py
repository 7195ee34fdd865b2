"""The contract between Tapeline's processes, the run loop they share, and the command line."""
