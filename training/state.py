"""All of a run that survives a restart."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from torch_utils.distributed import all_reduce_sum, broadcast
from torch_utils.rng import derive_seed
from torch_utils.stats import Stats
from training.augment.ada import AdaController
from training.config import DatasetSpec, OptimizerConfig, RunConfig
from training.health import Health
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.precision import loss_scaler, resolve_precision


def lazy_adam(parameters: list[nn.Parameter], lr: float, config: OptimizerConfig, interval: int) -> torch.optim.Adam:
    """Adam scaled for a regularisation that adds one step every `interval` batches (StyleGAN2, appendix B)."""
    ratio = interval / (interval + 1)
    betas = (config.beta1**ratio, config.beta2**ratio)
    return torch.optim.Adam(parameters, lr=lr * ratio, betas=betas, eps=config.eps, fused=True)


def trainable(network: Discriminator, freeze_layers: int) -> list[nn.Parameter]:
    """The discriminator's parameters without those of its first layers."""
    frozen = {p for layer in list(network.layers_from_image())[:freeze_layers] for p in layer.parameters()}
    return [p for p in network.parameters() if p not in frozen]


def _checksum(network: nn.Module) -> int:
    """A number that tells the weights of a network from others, down to the last bit and the place of each."""
    total = torch.zeros([], dtype=torch.int64, device=next(network.parameters()).device)
    for number, parameter in enumerate(network.parameters(), start=1):
        bits = parameter.detach().flatten().view(torch.int32).to(torch.int64)
        total += number * (bits * (torch.arange(len(bits), device=bits.device) % 65521 + 1)).sum()
    return int(total)


class TrainState:
    """Networks, optimizers, averages, augmentation probability, statistics and the clock."""

    def __init__(self, config: RunConfig, spec: DatasetSpec, device: torch.device) -> None:
        self.config, self.spec, self.device = config, spec, device
        self.cur_nimg = 0
        torch.manual_seed(derive_seed(config.schedule.seed, 2))
        self.G = Generator(config.generator, spec).to(device).train()
        self.D = Discriminator(config.discriminator, spec).to(device).train()
        broadcast([*self.G.state_dict().values(), *self.D.state_dict().values()])
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.D.requires_grad_(False)  # a phase switches on what it trains
        optimizer, loss = config.optimizer, config.loss
        self.g_parameters = list(self.G.parameters())
        self.d_parameters = trainable(self.D, config.discriminator.freeze_layers)
        self.g_optimizer = lazy_adam(self.g_parameters, optimizer.g_lr, optimizer, loss.pl_interval)
        self.d_optimizer = lazy_adam(self.d_parameters, optimizer.d_lr, optimizer, loss.r1_interval)
        precision = resolve_precision(config.performance.precision, device)
        self.g_scaler, self.d_scaler = loss_scaler(precision, device), loss_scaler(precision, device)
        self.pl_mean = torch.zeros([], device=device)
        augment = config.augment
        self.ada = AdaController(
            augment.p, augment.mode == "ada", augment.max_p, device=device, reduce_sum=all_reduce_sum
        )
        self.stats = Stats(device)
        self.health = Health(device)
        self.num_rollbacks = 0  # times that the run went back to a saved state because it had diverged

    @property
    def batch_index(self) -> int:
        """Batches done so far."""
        return self.cur_nimg // self.config.schedule.batch

    @property
    def components(self) -> dict[str, Any]:
        """Name -> what has `state_dict` and `load_state_dict`."""
        names = ("G", "D", "G_ema", "g_optimizer", "d_optimizer", "g_scaler", "d_scaler", "stats", "health")
        return {**{name: getattr(self, name) for name in names}, "strength": self.ada}

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors from which `load_state_dict` goes on bit for bit; call it on every rank."""
        state = {name: component.state_dict() for name, component in self.components.items()}
        return {**state, "cur_nimg": self.cur_nimg, "pl_mean": self.pl_mean, "num_rollbacks": self.num_rollbacks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        for name, component in self.components.items():
            if name not in ("g_scaler", "d_scaler") or state.get(name):  # {} without float16; older states have none
                component.load_state_dict(state[name])
        self.pl_mean = state["pl_mean"].to(self.device)
        for mean in (self.pl_mean, *(network.mapping_network.w_avg for network in (self.G, self.G_ema))):
            mean.nan_to_num_(0.0, 0.0, 0.0)  # older versions saved what had diverged
        self.cur_nimg = state["cur_nimg"]
        self.num_rollbacks = state["num_rollbacks"]

    @property
    def seed(self) -> int:
        """Of data order, latents, noise and augmentation: that of the run, another one after each rollback."""
        seed = self.config.schedule.seed
        return derive_seed(seed, 5, self.num_rollbacks) if self.num_rollbacks else seed

    def tensors(self) -> list[Tensor]:
        """All that is saved and that training reads again: weights, buffers, moments, running mean, probability."""
        found = [t for net in (self.G, self.D, self.G_ema) for t in net.state_dict().values()]
        for optimizer in (self.g_optimizer, self.d_optimizer):
            found += [t for values in optimizer.state.values() for t in values.values() if isinstance(t, Tensor)]
        return [*found, self.pl_mean, self.ada.p]

    def is_good(self) -> bool:
        """Whether the last step was finite, and everything that is saved is (`tensors`); waits for the device."""
        are_finite = [t.isfinite().all().to(self.device) for t in self.tensors()]
        return self.health.streak == 0 and bool(torch.stack(are_finite).all())

    def checksums(self) -> list[int]:
        """A number for each network that tells its weights from others, down to the last bit."""
        return [_checksum(getattr(self, name)) for name in ("G", "D", "G_ema")]
