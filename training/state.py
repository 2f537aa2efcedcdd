"""All of a run that survives a restart."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.dataclass_values import require
from torch_utils.distributed import all_reduce_sum, broadcast
from torch_utils.finite import is_all_finite
from torch_utils.rng import derive_seed
from torch_utils.stats import Stats
from training.augment.ada import AdaController
from training.config import DatasetSpec, EmaConfig, RunConfig
from training.ema import ema_beta, update_ema
from training.precision import loss_scaler, resolve_precision
from training.registry import create
from training.schedule import Ramp, Scheduled


def trainable(network: Any, freeze_layers: int) -> list[nn.Parameter]:
    """The discriminator's parameters without those of its first layers."""
    if not freeze_layers:
        return list(network.parameters())
    layers = list(network.layers_from_image())
    require(
        freeze_layers < len(layers),
        f"--freezed={freeze_layers} leaves no layer to train: the discriminator has {len(layers)}",
    )
    frozen = {p for layer in layers[:freeze_layers] for p in layer.parameters()}
    return [p for p in network.parameters() if p not in frozen]


def _checksum(network: nn.Module) -> int:
    """A number that tells the weights of a network from others, down to the last bit and the place of each."""
    total = torch.zeros([], dtype=torch.int64, device=next(network.parameters()).device)
    for number, parameter in enumerate(network.parameters(), start=1):
        bits = parameter.detach().flatten().view(torch.int32).to(torch.int64)
        total += number * (bits * (torch.arange(len(bits), device=bits.device) % 65521 + 1)).sum()
    return int(total)


class FiniteCheck:
    """Counts steps whose losses or gradients were not finite, on the device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._is_bad = torch.zeros([], dtype=torch.int64, device=device)  # in the present step
        self._consecutive_bad = torch.zeros([], dtype=torch.int64, device=device)
        self._total_bad = torch.zeros([], dtype=torch.int64, device=device)

    def report(self, is_finite: Tensor) -> None:
        """Note whether loss and gradients of a phase were finite: a bool tensor without dimensions, alike on all ranks."""
        self._is_bad |= ~is_finite

    def end_step(self) -> None:
        self._total_bad += self._is_bad
        self._consecutive_bad = (self._consecutive_bad + 1) * self._is_bad
        self._is_bad.zero_()

    @property
    def consecutive_bad(self) -> int:
        """Bad steps since the last good one; waits for the device."""
        return int(self._consecutive_bad)

    @property
    def total_bad(self) -> int:
        """Bad steps since the start of the run; waits for the device."""
        return int(self._total_bad)

    def state_dict(self) -> dict[str, int]:
        return {"streak": self.consecutive_bad, "total": self.total_bad}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._is_bad.zero_()
        self._consecutive_bad.fill_(state["streak"])
        self._total_bad.fill_(state["total"])


@dataclass(frozen=True)
class NetworkState:
    """What trains a network."""

    parameters: list[nn.Parameter]  # that are trained
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of the loss of main phases; does nothing without float16


def parameter_groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups for the optimizer, one per learning-rate multiplier (the attribute `lr_mult`; without it 1, which comes first)."""
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "lr_mult", 1.0), []).append(parameter)
    return [{"params": group} for group in groups.values() if group]


class TrainState:
    """Networks, optimizers, averages, augmentation probability, statistics and the clock.

    Attributes:
        G, D: The networks being trained.
        averages: The averaged generators by name, see `EmaConfig.averages`; `G_ema` is the first.
        g, d: Their parameters with the optimizers.
        loss_buffers: Tensors that the loss keeps between steps, by name.
        cur_nimg: Images seen, the clock of a run.
        num_rollbacks: Times that the run returned to a saved state because it had diverged.
    """

    def __init__(self, config: RunConfig, spec: DatasetSpec, device: torch.device) -> None:
        self.config, self.spec, self.device = config, spec, device
        self.cur_nimg = self.num_rollbacks = 0
        torch.manual_seed(derive_seed(config.schedule.seed, 2))
        self.G = create("generator", config.generator.kind, config.generator, spec).to(device).train()
        self.D = create("discriminator", config.discriminator.kind, config.discriminator, spec).to(device).train()
        broadcast([*self.G.state_dict().values(), *self.D.state_dict().values()])
        self.averages = {name: copy.deepcopy(self.G).eval().requires_grad_(False) for name in config.ema.averages}
        self.G_ema = self.averages["G_ema"]
        self.D.requires_grad_(False)  # a phase switches on what it trains
        self.g = self._network_state(list(self.G.parameters()))
        self.d = self._network_state(trainable(self.D, config.discriminator.freeze_layers))
        self.loss_buffers: dict[str, Tensor] = {}
        augment = config.augment
        self.ada = AdaController(
            self.now(augment.p), augment.mode == "ada", augment.max_p, device=device, reduce_sum=all_reduce_sum
        )
        self.stats = Stats(device)
        self.finite = FiniteCheck(device)
        self.apply_schedules()

    def _network_state(self, parameters: list[nn.Parameter]) -> NetworkState:
        optimizer = torch.optim.Adam(parameter_groups(parameters), fused=True)  # settings: apply_schedules
        precision = resolve_precision(self.config.performance.precision, self.device)
        return NetworkState(parameters, optimizer, loss_scaler(precision, self.device))

    @property
    def batch_index(self) -> int:
        return self.cur_nimg // self.config.schedule.batch

    @property
    def seed(self) -> int:
        """Of data order, latents, noise and augmentation: that of the run, another one after each rollback."""
        seed = self.config.schedule.seed
        return derive_seed(seed, 5, self.num_rollbacks) if self.num_rollbacks else seed

    def now(self, value: Scheduled) -> float:
        return value.at(self.cur_nimg, self.config.schedule.burn_in_kimg * 1000) if isinstance(value, Ramp) else value

    def apply_schedules(self) -> None:
        """Give the optimizers, and augmentation with a fixed probability, the settings of the step that follows."""
        config = self.config.optimizer
        rates = ((self.g, config.g_lr, 1.0), (self.d, config.d_lr, self.config.discriminator.lr_scale))
        for (trained, lr, scale), interval in zip(rates, self.config.loss.lazy_intervals, strict=True):
            # Scaled for a regularisation that adds one step every `interval` batches (StyleGAN2, appendix B); 0 = none.
            ratio = interval / (interval + 1) if interval else 1.0
            betas = config.beta1**ratio, self.now(config.beta2) ** ratio
            for group in trained.optimizer.param_groups:
                lr_mult = getattr(group["params"][0], "lr_mult", 1.0)
                group.update(lr=self.now(lr) * scale * ratio * lr_mult, betas=betas, eps=config.eps)
        if self.config.augment.mode == "fixed":
            self.ada.p.fill_(self.now(self.config.augment.p))

    def advance(self) -> None:
        """End an iteration: move the averaged generators, count the images, adjust schedules and augmentation."""
        batch, ema, augment = self.config.schedule.batch, self.config.ema, self.config.augment
        for name, half_life in ema.averages.items():
            beta = ema_beta(batch, self.cur_nimg, self.now(half_life) * 1000, ema.rampup)
            update_ema(self.averages[name], self.G, beta)
        self.cur_nimg += batch
        if ema.reload_kimg is not None and self.cur_nimg - batch < ema.reload_kimg * 1000 <= self.cur_nimg:
            self.G.load_state_dict(self.G_ema.state_dict())
        self.apply_schedules()
        self.finite.end_step()
        if augment.mode == "ada" and self.batch_index % augment.interval == 0:
            self.ada.adjust(batch, augment.interval, augment.target, augment.speed_kimg * 1000)

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"G": self.G, "D": self.D, **self.averages}

    @property
    def components(self) -> dict[str, Any]:
        """Key in a state file -> what has `state_dict` and `load_state_dict`."""
        return {
            **self.networks,
            "g_optimizer": self.g.optimizer, "d_optimizer": self.d.optimizer,
            "g_scaler": self.g.scaler, "d_scaler": self.d.scaler,
            "strength": self.ada, "stats": self.stats, "health": self.finite,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors from which `load_state_dict` continues bit for bit; call it on every rank."""
        state = {name: component.state_dict() for name, component in self.components.items()}
        numbers = {"cur_nimg": self.cur_nimg, "num_rollbacks": self.num_rollbacks}
        return {**state, **numbers, "loss_buffers": dict(self.loss_buffers)}

    def load_state_dict(self, state: dict[str, Any], ema: EmaConfig | None = None) -> None:
        """Restore what `state_dict` returned; `ema` are the averages of that run, None = as here."""
        sources = self.config.ema.sources(ema or self.config.ema)
        for name, component in self.components.items():
            if name not in ("g_scaler", "d_scaler") or state.get(name):  # {} without float16; older states have none
                component.load_state_dict(state[sources.get(name, name)])
        buffers = state["loss_buffers"] if "loss_buffers" in state else {"pl_mean": state["pl_mean"]}  # older states
        self.loss_buffers.update({name: buffer.to(self.device) for name, buffer in buffers.items()})
        means = [network.mapping_network.w_avg for network in (self.G, *self.averages.values())]
        for mean in (*self.loss_buffers.values(), *means):
            mean.nan_to_num_(0.0, 0.0, 0.0)  # older versions saved what had diverged
        self.cur_nimg = state["cur_nimg"]
        self.num_rollbacks = state["num_rollbacks"]
        self.apply_schedules()  # settings may differ from those of the saved optimizers

    def tensors(self) -> list[Tensor]:
        """All that is saved and that training reads again: weights, buffers, moments, running means, probability."""
        found = [t for network in self.networks.values() for t in network.state_dict().values()]
        for optimizer in (self.g.optimizer, self.d.optimizer):
            found += [t for values in optimizer.state.values() for t in values.values() if isinstance(t, Tensor)]
        return [*found, *self.loss_buffers.values(), self.ada.p]

    def all_finite(self) -> bool:
        """Whether the last step was finite, and everything that is saved is (`tensors`); waits for the device."""
        are_finite = [is_all_finite(t).to(self.device) for t in self.tensors()]
        return self.finite.consecutive_bad == 0 and bool(torch.stack(are_finite).all())

    def checksums(self) -> list[int]:
        """A number for each network that tells its weights from others, down to the last bit."""
        return [_checksum(network) for network in self.networks.values()]
