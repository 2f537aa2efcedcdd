"""Reduced precision against float32: images, gradients, what stays float32, and whole runs."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_runs import CPU, micro_batch, phase_of, train_in_parts
from torch import Tensor, nn

from torch_utils import distributed
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig, PerformanceConfig, RunConfig
from training.losses import build_phases
from training.losses.logistic import LogisticLoss
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator, ToRGB
from training.networks.layers import EqualizedConv2d, EqualizedLinear
from training.precision import allow_tf32, describe_precision, resolve_precision
from training.state import TrainState

CUDA = torch.device("cuda", 0)
SPEC = DatasetSpec(32, 32, 3, 4)
IMAGE_ERRORS = {torch.bfloat16: 0.02, torch.float16: 0.003}  # mean
COSINES = {"bf16": 0.99, "fp16": 0.999}  # of gradients


@pytest.fixture(params=[False, True], ids=["plain", "linformer"])
def generator(request: pytest.FixtureRequest) -> Generator:
    """A small generator whose noise and styles matter."""
    torch.manual_seed(0)
    config = GeneratorConfig(widths=(64, 48, 32), layers=(1, 2, 1), head_width=16, linformer=request.param, w_dim=64)
    network = Generator(config, SPEC)
    for name, parameter in network.synthesis.named_parameters():
        if "noise_strength" in name:
            nn.init.constant_(parameter, 0.2)
    return network


def labels(count: int) -> Tensor:
    return torch.eye(4)[torch.arange(count) % 4]


def cosine(ours: list[Tensor], theirs: list[Tensor]) -> float:
    a, b = (torch.cat([x.flatten() for x in part]).double() for part in (ours, theirs))
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("dtype", IMAGE_ERRORS)
def test_images_are_those_of_float32(generator: Generator, dtype: torch.dtype) -> None:
    ws = generator.mapping(torch.randn(8, 512), labels(8)).detach()
    images = []
    for each in (None, dtype):
        torch.manual_seed(1)
        images.append(generator.synthesis(ws, dtype=each))
    assert images[1].dtype == torch.float32
    assert 0 < (images[0] - images[1]).abs().mean() < IMAGE_ERRORS[dtype]
    assert images[0].std() > 0.3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("loss", ["g_main", "d_main", "d_r1", "g_path_length"])
def test_gradients_are_those_of_float32(tiny_config: RunConfig, loss: str, precision: str) -> None:
    """Of the regularisers, which are computed in float32, bit for bit."""
    config = tiny_config.changed(generator={"widths": (64, 32)}, augment={"mode": "noaug"})
    gradients = []
    for name in ("fp32", precision):
        state = TrainState(replace(config, performance=PerformanceConfig(name)), DatasetSpec(16, 16, 3), CPU)
        state.D.requires_grad_(True)
        torch.manual_seed(2)
        for term in getattr(LogisticLoss(state), loss)(micro_batch(0, 16)):
            term.backward()
        network = state.G if loss.startswith("g") else state.D
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(gradient.dtype == torch.float32 for gradient in gradients[1])
    if loss.endswith("main"):
        assert cosine(*gradients) > COSINES[precision]
    else:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))


@pytest.mark.parametrize("architecture", ["resnet", "skip"])
def test_linear_layers_and_the_epilogue_stay_float32(generator: Generator, architecture: str) -> None:
    """The minibatch-std channel of nearly equal images is a small signal, which bf16 would round to 3 digits."""
    D = Discriminator(DiscriminatorConfig(architecture=architecture, channel_base=512, channel_max=16), SPEC)
    seen: dict[str, set[torch.dtype]] = {}

    def record(place: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.setdefault(place, set()).update({inputs[0].dtype, output.dtype})

    for name, module in [*generator.named_modules(), *D.named_modules()]:
        if isinstance(module, EqualizedLinear):
            module.register_forward_hook(partial(record, "linear"))
        if isinstance(module, EqualizedConv2d):
            module.register_forward_hook(partial(record, name.split(".")[0]))
    images = generator.synthesis(generator.mapping(torch.randn(4, 512), labels(4)), dtype=torch.bfloat16)
    assert D(images, labels(4), torch.bfloat16).dtype == torch.float32
    assert seen == {"linear": {torch.float32}, "blocks": {torch.bfloat16}, "epilogue": {torch.float32}}


@pytest.mark.parametrize("size", [1e-3, 3e4])
def test_float16_survives_styles_of_any_size(size: float) -> None:
    torch.manual_seed(0)
    layer = ToRGB(w_dim=16, width=32, img_channels=3).requires_grad_(False)
    x, w = torch.randn(2, 16, 32).clamp(-256, 256) * 50, torch.randn(2, 16) * size
    expected = layer(x, w)
    torch.testing.assert_close(layer(x.half(), w), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def test_float16_is_clamped_where_the_configuration_has_no_clamp() -> None:
    torch.manual_seed(0)
    D = Discriminator(DiscriminatorConfig(architecture="orig", channel_base=512, channel_max=16, clamp=None), SPEC)
    image = torch.randn(4, 3, 32, 32) * 60000
    assert not D.blocks[0].from_rgb(image).abs().max() < 1000
    assert D(image.clamp(-60000, 60000), labels(4), torch.float16).isfinite().all()


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [("auto", (8, 0), "bf16"), ("auto", (9, 0), "bf16"), ("auto", (7, 5), "fp16"), ("tf32", (9, 0), "tf32")],
)
def test_precision_follows_the_gpu(monkeypatch, name, capability, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU X")
    assert resolve_precision(name, CUDA).name == expected
    assert f"Precision: {expected}" in describe_precision(name, CUDA)


def resolve_on_different_gpus(folder: Path) -> None:
    distributed.init(CPU)
    capability = [(8, 6), (7, 5)][distributed.rank()]
    torch.cuda.get_device_capability = lambda device: capability  # type: ignore[assignment]
    (folder / str(distributed.rank())).write_text(resolve_precision("auto", CUDA).name)
    distributed.shutdown()


def test_precision_follows_the_oldest_gpu(tmp_path: Path) -> None:
    distributed.spawn(resolve_on_different_gpus, 2, tmp_path)
    assert [(tmp_path / name).read_text() for name in "01"] == ["fp16", "fp16"]


@pytest.fixture
def half(tiny_config: RunConfig) -> TrainState:
    """A state that trains in fp16."""
    return TrainState(replace(tiny_config, performance=PerformanceConfig("fp16")), DatasetSpec(16, 16, 3), CPU)


def set_scale(scaler: torch.amp.GradScaler, scale: float) -> None:
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale})


@pytest.mark.parametrize("name", ["G_main", "D_main"])
def test_the_scale_comes_down_from_an_overflow_without_a_fault(half: TrainState, name: str) -> None:
    phase = phase_of(half, name)
    set_scale(phase.scaler, 2.0**32)
    before = [p.detach().clone() for p in phase.trained.parameters]
    phase.step([micro_batch(0)])
    assert all(torch.equal(p, q) for p, q in zip(phase.trained.parameters, before, strict=True))
    steps = 1
    while all(torch.equal(p, q) for p, q in zip(phase.trained.parameters, before, strict=True)):
        phase.step([micro_batch(0)])
        steps += 1
    half.finite.end_step()
    assert half.finite.total_bad == 0
    assert 1 < steps < 33 and phase.scaler.get_scale() == 2.0 ** (32 - steps + 1)
    assert all(p.isfinite().all() for p in phase.trained.parameters)


def test_an_overflow_that_no_scale_cures_is_a_fault(half: TrainState) -> None:
    """The loss is finite, its gradient is not, as where a layer's derivative overflows."""
    phase = build_phases(half)[0]
    first = phase.trained.parameters[0]
    phase = replace(phase, loss=lambda batch: [(first.flatten()[0] * 0).sqrt()])  # the root of 0 rises infinitely fast
    set_scale(phase.scaler, 4.0)
    streaks = []
    for _ in range(4):
        phase.step([micro_batch(0)])
        half.finite.end_step()
        streaks.append(half.finite.consecutive_bad)
    assert streaks == [0, 0, 1, 2]  # at scales 4, 2, 1 and 1/2


def test_a_resumed_run_in_fp16_equals_the_uninterrupted_one(tiny_config, tiny_data, tmp_path) -> None:
    config = replace(tiny_config, performance=PerformanceConfig("fp16"))
    _, resumed = train_in_parts(config, tiny_data, tmp_path)
    assert resumed.state.g.scaler.state_dict()["_growth_tracker"] > 0


def tf32_switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def without_tf32() -> Iterator[None]:
    before = tf32_switches()
    allow_tf32(False)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("without_tf32")
@pytest.mark.parametrize(
    ("precision", "expected"), [("bf16", {"G_pl", "D_r1"}), ("fp16", {"G_pl", "D_r1"}), ("fp32", set())]
)
def test_regularisers_alone_may_round_to_tf32(tiny_config: RunConfig, precision: str, expected: set[str]) -> None:
    state = TrainState(replace(tiny_config, performance=PerformanceConfig(precision)), DatasetSpec(16, 16, 3), CPU)
    allowed = set()

    def noted(terms: Iterable[Tensor], name: str) -> Iterator[Tensor]:
        allowed.update({name} if tf32_switches() == (True, True) else ())
        yield from terms

    for phase in build_phases(state):
        replace(phase, loss=lambda batch, phase=phase: noted(phase.loss(batch), phase.name)).step([micro_batch(0)])
        assert tf32_switches() == (False, False)
    assert allowed == expected
