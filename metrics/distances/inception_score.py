"""The Inception score: high where each image is classified with certainty, and all classes are equally frequent."""

import itertools
import math

import torch
from torch import Tensor

NUM_SPLITS = 10


def inception_score(logits: Tensor, num_splits: int = NUM_SPLITS) -> tuple[float, float]:
    """Return mean and standard deviation (ddof 0) over contiguous splits of exp(mean KL(p(y|x) || p(y))), in float64.

    Salimans et al., Improved Techniques for Training GANs, 2016, section 4. Class scores are [images, classes], of an image per
    split or more.
    """
    bounds = [len(logits) * split // num_splits for split in range(num_splits + 1)]
    scores = torch.stack([_score(logits[start:stop].double()) for start, stop in itertools.pairwise(bounds)])
    return scores.mean().item(), scores.std(correction=0).item()


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(dim=1)
    log_mean = log_p.logsumexp(dim=0) - math.log(len(log_p))  # finite also where a class has no probability
    divergence = (log_p.exp() * (log_p - log_mean)).sum(dim=1)
    return divergence.mean().exp()
