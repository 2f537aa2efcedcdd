"""Checks whether this machine can train, and how well: `python -m torch_utils.doctor`.

Each check is a function of facts gathered elsewhere, so that tests can describe any machine. It needs only Python's own
library: PyTorch is imported by a separate process, which may fail or crash.
"""
