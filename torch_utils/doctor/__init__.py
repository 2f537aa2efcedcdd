"""Says what keeps Styleformer from training well on this machine: `python -m torch_utils.doctor`.

Each check is a function of facts gathered elsewhere, so that a test can describe any machine. Nothing here needs more than
Python's own library: PyTorch is imported in a process of its own, which may fail or crash.
"""
