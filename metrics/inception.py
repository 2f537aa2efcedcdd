"""The Inception network under the path that notebooks import it by."""

from metrics.networks.inception import InceptionV3

__all__ = ["InceptionV3"]
