"""Reduced precision against float32: pictures, gradients, what stays float32, and whole runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_loop import train
from torch import Tensor, nn

from dnnlib.dataclass_values import ConfigError
from training.checkpoint import load_generator
from training.config import DatasetSpec, DiscriminatorConfig, GeneratorConfig, PerformanceConfig, RunConfig
from training.latents import Latents
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator, ToRGB
from training.networks.layers import EqualizedLinear
from training.phases import Losses, MicroBatch, build_phases
from training.precision import FLOAT16_LOSS_SCALE, describe_precision, resolve_precision
from training.runs import differences
from training.state import TrainState

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SPEC = DatasetSpec(32, 32, 3, 4)
IMAGE_ERRORS = {torch.bfloat16: 0.02, torch.float16: 0.003}  # mean
COSINES = {"bf16": (0.99, 0.97), "fp16": (0.999, 0.999)}  # of gradients; the second is that of the path length


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
@pytest.mark.parametrize("phase", ["g_main", "d_main", "d_r1", "g_path_length"])
def test_gradients_are_those_of_float32(tiny_config: RunConfig, phase: str, precision: str) -> None:
    config = replace(
        tiny_config,
        generator=replace(tiny_config.generator, widths=(64, 32)),
        augment=replace(tiny_config.augment, mode="noaug"),
    )
    gradients = []
    for name in ("fp32", precision):
        state = TrainState(replace(config, performance=PerformanceConfig(name)), DatasetSpec(16, 16, 3), CPU)
        state.D.requires_grad_(True)
        torch.manual_seed(2)
        z, c = torch.randn(16, 8), torch.zeros(16, 0)
        batch = MicroBatch(torch.randn(16, 3, 16, 16), c, Latents(z, c, None, 1, 0))
        getattr(Losses(state), phase)(batch).backward()
        network = state.G if phase.startswith("g") else state.D
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert all(gradient.dtype == torch.float32 for gradient in gradients[1])
    assert cosine(*gradients) > COSINES[precision][phase == "g_path_length"]


def test_linear_layers_outside_the_large_products_stay_float32(generator: Generator) -> None:
    """Mapping, affine and final layers; one of the discriminator's convolutions shows that the rest is reduced."""
    D = Discriminator(DiscriminatorConfig(channel_base=512, channel_max=16), SPEC)
    seen: dict[type, set[torch.dtype]] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.setdefault(type(module), set()).update({inputs[0].dtype, output.dtype})

    for network in (generator, D):
        for module in network.modules():
            module.register_forward_hook(note) if isinstance(module, EqualizedLinear) else None
    convolution = {torch.bfloat16}
    D.blocks[0].conv0.register_forward_hook(lambda module, inputs, output: convolution.add(output.dtype))
    images = generator.synthesis(generator.mapping(torch.randn(4, 512), labels(4)), dtype=torch.bfloat16)
    assert D(images, labels(4), torch.bfloat16).dtype == torch.float32
    assert seen == {EqualizedLinear: {torch.float32}}
    assert convolution == {torch.bfloat16}


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
def test_precision_follows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU X")
    assert resolve_precision(name, CUDA).name == expected
    assert f"Precision: {expected}" in describe_precision(name, CUDA)


def test_precision_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("auto", CPU) == resolve_precision("fp32", CPU)
    assert describe_precision("auto", CPU) == "Precision: fp32 (auto, on the CPU)"
    assert "slowly" in describe_precision("fp16", CPU)
    with pytest.raises(ConfigError, match="--precision must be one of"):
        PerformanceConfig("fp8")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert "--precision=fp16 is faster there" in describe_precision("bf16", CUDA)


def test_loss_scale_does_not_change_the_gradients(tiny_config: RunConfig) -> None:
    gradients = []
    for scale in (1.0, FLOAT16_LOSS_SCALE):
        state = TrainState(tiny_config, DatasetSpec(16, 16, 3), CPU)
        phase = replace(build_phases(state)[0], loss_scale=scale)
        torch.manual_seed(3)
        z, c = torch.randn(4, 8), torch.zeros(4, 0)
        phase.step([MicroBatch(torch.randn(4, 3, 16, 16), c, Latents(z, c, None, 1, 0))])
        gradients.append([p.grad for p in phase.parameters if p.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)  # powers of two: equal but for the smallest


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_run_keeps_float32_weights(tiny_config: RunConfig, tiny_data: Path, tmp_path: Path, precision: str) -> None:
    schedule = replace(tiny_config.schedule, kimg=0.024)
    config = replace(tiny_config, performance=PerformanceConfig(precision), schedule=schedule)
    loop = train(config, tiny_data, tmp_path / "run")
    assert loop.state.health.total == 0
    assert all(p.dtype == torch.float32 for net in (loop.state.G, loop.state.D) for p in net.parameters())
    generator = load_generator(next((tmp_path / "run").glob("network-snapshot-*.pkl")))
    assert {p.dtype for p in generator.parameters()} == {torch.float32}


def test_resumed_runs_keep_their_precision(tiny_config: RunConfig) -> None:
    def with_(performance: PerformanceConfig) -> RunConfig:
        return replace(tiny_config, performance=performance)

    free = with_(PerformanceConfig("bf16", compile="1", cuda_graphs=True, recomputed_stages=1))
    assert differences(with_(PerformanceConfig("bf16")), free) == []
    (found,) = differences(tiny_config, with_(PerformanceConfig("bf16")))
    assert found == "performance.precision (fp32 there, bf16 here)"


def test_old_runs_are_float32_and_eager() -> None:
    old = RunConfig().to_dict()
    del old["performance"]
    assert RunConfig.from_dict(old).performance == PerformanceConfig("fp32", compile="0")
