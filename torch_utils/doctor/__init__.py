"""Looks at a machine and says what keeps Styleformer from training well on it: `python -m torch_utils.doctor`.

Each check is a function of facts that were gathered elsewhere, so a test can give it any machine. Nothing here needs more
than Python's own library: PyTorch is asked in a process of its own, which may fail or crash.
"""
