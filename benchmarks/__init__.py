"""What `make bench` runs: the published formulation and ours, in turn in one process."""
