"""Snapshot and state files; the two loaders are imported from here by notebooks."""

from training.checkpoint.snapshot import load_discriminator, load_generator

__all__ = ["load_discriminator", "load_generator"]
