"""`python -m benchmarks.gpu_report`: what this program does on a GPU, found out by one command within a given time."""
