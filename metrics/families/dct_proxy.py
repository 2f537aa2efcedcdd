"""The proxy that compares spectra: quick to see blur and noise."""

from metrics.detectors import BuildContext, DetectorKind
from metrics.families import proxy
from metrics.features import Keep
from metrics.metric import Metric, RealUse
from metrics.networks.dct import DctSpectrum


def build_dct(context: BuildContext) -> DctSpectrum:
    """Return the detector of proxy_fd_dct_v1."""
    return DctSpectrum(context.device)


DETECTORS = {DctSpectrum.name: DetectorKind(build_dct)}

METRICS = {
    "proxy_fd_dct_v1": Metric(
        definition=f"Frechet distance (ddof {proxy.DDOF}) of {DctSpectrum.dim} numbers of the image's spectrum (DCT): "
        f"coarse structure and energy by frequency; all real images against {proxy.NUM_GEN:,} generated ones",
        detector=DctSpectrum.name,
        num_gen=proxy.NUM_GEN,
        keep=Keep.MOMENTS,
        real=RealUse(Keep.MOMENTS),
        check=proxy.check_any,
        measure=proxy.measure_distance,
        comparable_to_published=False,
    ),
}
