"""The SAN head of the discriminator: two terms, each of which trains its own part."""

from typing import Any

import pytest
import torch
from tiny_runs import CPU, gradients, micro_batch, phase_of, train_in_parts, without_randomness
from torch import Tensor

from dnnlib.dataclass_values import override
from training.checkpoint.snapshot import load_discriminator
from training.config import DatasetSpec, RunConfig
from training.losses.functions import difference_penalty
from training.networks.discriminator import Discriminator
from training.state import TrainState


def with_san(config: RunConfig, **loss: Any) -> RunConfig:
    kind = loss.pop("kind", "logistic")
    config = override(override(config, "loss.kind", kind), "discriminator.san", "true")
    return config.changed(loss=loss)


@pytest.mark.parametrize("label_dim", [0, 3])
def test_each_term_trains_its_own_part(tiny_config: RunConfig, label_dim: int) -> None:
    torch.manual_seed(0)
    D = Discriminator(with_san(tiny_config).discriminator, DatasetSpec(16, 16, 3, label_dim)).double()
    torch.nn.init.normal_(D.epilogue.out.bias)
    images, c = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.eye(4, label_dim, dtype=torch.float64)
    last = {"epilogue.out.weight"} if not label_dim else {n for n, _ in D.named_parameters() if "mapping_network" in n}
    logits, both = D(images, c), D(images, c, in_two_terms=True)
    assert both.shape == (4, 2)
    torch.testing.assert_close(both[:, :1], logits)
    found = []
    for column in (0, 1):
        D.zero_grad()
        both[:, column].sum().backward(retain_graph=True)
        found.append({name for name, p in D.named_parameters() if p.grad is not None and p.grad.any()})
    assert found[1] == last and found[0] == {n for n, _ in D.named_parameters()} - last
    if not label_dim:
        with torch.no_grad():
            D.epilogue.out.weight.mul_(3.0)  # only its direction counts
        torch.testing.assert_close(D(images, c), logits)


@pytest.mark.parametrize("kind", ["logistic", "relativistic"])
def test_the_step_of_d_is_that_of_the_formulas(tiny_config: RunConfig, kind: str) -> None:
    config = without_randomness(with_san(tiny_config, kind=kind, mixing_prob=0.0, r1_gamma=1.0))
    state = TrainState(config, DatasetSpec(16, 16, 3), CPU)
    state.G.double(), state.D.double()
    batch = micro_batch(0, dtype=torch.float64)
    D = state.D.requires_grad_(True)
    value = sum(phase_of(state, "D_main").loss(batch))  # type: ignore[arg-type]
    fakes = state.G(batch.latents.z, noise_mode="none").detach()

    def terms(images: Tensor) -> tuple[Tensor, Tensor]:
        hidden: list[Tensor] = []
        hook = D.epilogue.fc.register_forward_hook(lambda module, inputs, output: hidden.append(output))
        D(images)
        hook.remove()
        w = D.epilogue.out.weight / D.epilogue.out.weight.norm()
        return hidden[0] @ w.detach().t() + D.epilogue.out.bias, hidden[0].detach() @ w.t()

    (f_real, d_real), (f_fake, d_fake) = terms(batch.images), terms(fakes)
    if kind == "logistic":
        usual = torch.log1p(torch.exp(f_fake)).mean() + torch.log1p(torch.exp(-f_real)).mean()
    else:
        usual, drawn = torch.log1p(torch.exp(f_fake - f_real)).mean(), torch.Generator().manual_seed(7)
        for images, logits in ((batch.images, f_real), (fakes, f_fake)):
            noise = torch.randn(images.shape, generator=drawn, dtype=torch.float64)
            usual = usual + difference_penalty(logits, terms(images + 0.01 * noise)[0], 0.01).mean() / 2
    expected = usual + d_fake.mean() - d_real.mean()
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradients(value, D), gradients(expected, D), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("kind", "penalty"), [("logistic", ""), ("relativistic", "exact"), ("relativistic", "approx")])
def test_a_run_trains_and_resumes(tiny_config, tiny_data, tmp_path, kind, penalty) -> None:
    config = with_san(tiny_config, kind=kind, **({"penalty": penalty} if penalty else {}))
    config = config.changed(data={"cond": True})

    whole, _ = train_in_parts(config, tiny_data, tmp_path)
    D = load_discriminator(tmp_path / "whole" / "network-snapshot-000000.pkl")
    images, c = torch.randn(3, 3, 16, 16), torch.eye(3)
    assert torch.equal(D(images, c), whole.state.D.eval()(images, c)) and D(images, c).shape == (3, 1)
