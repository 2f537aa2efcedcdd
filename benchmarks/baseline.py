"""The baseline: what the published code computes, operation by operation, on the parameters of our own networks.

A weight of its own for every sample and layer, the whole attention matrix, float32, one operation at a time. The
discriminator is that of StyleGAN2 in the same manner. The published code brings compiled operators for bias with
activation and for filtering, for the GPU only; where ours for the GPU can be used they stand for them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.kernels import find_kernel
from torch_utils.ops.upfirdn2d import setup_filter, upfirdn2d
from training.networks.attention import EncoderLayer, layer_noise
from training.networks.discriminator import Block, Discriminator
from training.networks.generator import Generator, Stage, SynthesisNetwork, ToRGB
from training.networks.layers import ACTIVATION_GAIN, RESAMPLE_TAPS, EqualizedConv2d, EqualizedLinear
from training.networks.mapping import normalize_second_moment

EPS = 1e-8  # of every demodulation
SLOPE = 0.2  # of every leaky ReLU


def activate(x: Tensor, bias: Tensor | None, dim: int, act: str, gain: float, clamp: float | None) -> Tensor:
    """Bias, activation, gain and clamp, each as a separate operation."""
    if find_kernel("bias_act", x):
        return bias_act(x, bias, dim, act, gain=gain, clamp=clamp)
    if bias is not None:
        x = x + bias.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    if act == "lrelu":
        x = F.leaky_relu(x, SLOPE)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def resample(x: Tensor, f: Tensor, up: int, down: int, padding: tuple[int, int], gain: float) -> Tensor:
    """Insert zeros, pad both axes by (before, after), filter, and drop pixels."""
    if find_kernel("upfirdn2d", x):
        return upfirdn2d(x, f, up, down, [*padding, *padding], gain=gain)
    channels = x.shape[1]
    if up > 1:
        x = F.pad(x[:, :, :, None, :, None], [0, up - 1, 0, 0, 0, up - 1]).flatten(4, 5).flatten(2, 3)
    kernel = (f * gain).flip([0, 1]).expand(channels, 1, *f.shape)
    return F.conv2d(F.pad(x, [*padding, *padding]), kernel, groups=channels)[:, :, ::down, ::down]


def linear(layer: EqualizedLinear, x: Tensor) -> Tensor:
    """Return an equalised linear layer."""
    x = x.matmul((layer.weight * layer.weight_gain).t())
    return activate(x, layer.bias * layer.bias_gain, 1, layer.activation, ACTIVATION_GAIN[layer.activation], None)


def modulated(weight: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
    """Return a copy of a weight, [out, in], for every sample, and what brings its rows to unit length, [batch, 1, out]."""
    copies = weight.unsqueeze(0) * style.unsqueeze(1)  # [batch, out, in]
    return copies, (copies.square().sum(dim=2) + EPS).rsqrt().unsqueeze(1)


def modulated_map(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """Tokens whose style is applied already through the shared weight, rows brought to the length of each sample's."""
    _, row_gain = modulated(weight, style)
    return x.matmul(weight.t()) * row_gain


def heads(x: Tensor, num_heads: int) -> Tensor:
    """[batch, tokens, width] to [batch, heads, tokens, width / heads]."""
    return x.reshape(x.shape[0], x.shape[1], num_heads, -1).permute(0, 2, 1, 3)


def encoder_layer(layer: EncoderLayer, x: Tensor, w: Tensor, noise_mode: str = "random") -> Tensor:
    """Return the modulated self-attention of an encoder layer."""
    style, value_style = linear(layer.affine, w).chunk(2, dim=1)
    query_weight, value_weight, key_weight = layer.qvk_weight.chunk(3)
    x = F.layer_norm(x * style.unsqueeze(1), [layer.width])
    query = modulated_map(x, query_weight, style)
    key = modulated_map(x, key_weight, style)
    value = modulated_map(x, value_weight, style) * value_style.unsqueeze(1)
    skip = modulated_map(value, layer.skip_weight, value_style)
    query, key, value = (heads(part, layer.num_heads) for part in (query, key, value))
    if layer.proj_weight is not None:
        key, value = layer.proj_weight.matmul(key), layer.proj_weight.matmul(value)
    attention = (query.matmul(key.transpose(2, 3)) / math.sqrt(query.shape[3])).softmax(dim=3)
    mixed = attention.matmul(value).permute(0, 2, 1, 3).reshape(x.shape)
    y = modulated_map(mixed, layer.out_weight, value_style) + skip
    noise = layer_noise(layer.noise_const.unsqueeze(0), len(y), noise_mode)
    if noise is not None:
        y = y + noise * layer.noise_strength
    return activate(y, layer.bias, 2, "lrelu", 1.0, layer.clamp)


def to_rgb(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """Tokens to colours, [batch, tokens, img_channels]."""
    style = linear(layer.affine, w)
    return modulated_map(x * style.unsqueeze(1), layer.weight, style) + layer.bias


def run_stage(stage: Stage, x: Tensor, ws: Tensor, noise_mode: str) -> tuple[Tensor, Tensor]:
    """Return the layers of one resolution, then its colours as an image."""
    x = x + stage.pos_embedding
    for index, layer in enumerate(stage.layers):
        assert isinstance(layer, EncoderLayer)
        x = encoder_layer(layer, x, ws[:, index], noise_mode)
    return x, as_image(to_rgb(stage.to_rgb, x, ws[:, len(stage.layers)]), stage.size)


def as_image(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens [batch, tokens, channels] as [batch, channels, height, width]."""
    return x.permute(0, 2, 1).reshape(len(x), -1, *size)


def upsample(x: Tensor) -> Tensor:
    """Twice the size, zeros inserted and filtered."""
    return resample(x, setup_filter(RESAMPLE_TAPS).to(x), 2, 1, (2, 1), 4)


def synthesis(network: SynthesisNetwork, ws: Tensor, noise_mode: str = "random") -> Tensor:
    """Styles [batch, num_ws, w_dim] to images [batch, img_channels, height, width]."""
    x = network.const.unsqueeze(0).repeat(len(ws), 1, 1)
    image: Tensor | None = None
    first_w = 0
    for stage in network.stages:
        assert isinstance(stage, Stage)
        if image is not None:
            x = upsample(as_image(x, (stage.size[0] // 2, stage.size[1] // 2))).flatten(2).permute(0, 2, 1)
        x, rgb = run_stage(stage, x, ws[:, first_w:], noise_mode)
        image = rgb if image is None else upsample(image) + rgb
        first_w += len(stage.layers)
    assert image is not None
    return image


def mapping(network: Generator, z: Tensor, c: Tensor | None = None) -> Tensor:
    """Latents (and labels) to styles, [batch, num_ws, w_dim], without truncation; the running mean is left alone."""
    part = network.mapping_network
    inputs = [normalize_second_moment(z)]
    if part.embed is not None:
        assert c is not None
        inputs.append(normalize_second_moment(linear(part.embed, c)))
    w = torch.cat(inputs, dim=1)
    for layer in part.layers:
        assert isinstance(layer, EqualizedLinear)
        w = linear(layer, w)
    return w.unsqueeze(1).repeat(1, network.num_ws, 1)


def generator(network: Generator, z: Tensor, c: Tensor | None = None, noise_mode: str = "random") -> Tensor:
    """Latents [batch, z_dim] and labels to images [batch, img_channels, height, width]."""
    return synthesis(network.synthesis, mapping(network, z, c), noise_mode)


def convolution(layer: EqualizedConv2d, x: Tensor, gain: float = 1.0) -> Tensor:
    """Return an equalised convolution; where it halves the size it filters first."""
    weight = layer.weight * layer.weight_gain
    taps, kernel_size = layer.resample_filter, weight.shape[2]
    if taps is None:
        x = F.conv2d(x, weight, padding=kernel_size // 2)
    elif kernel_size == 1:
        x = F.conv2d(resample(x, taps, 1, 2, (1, 1), 1), weight)
    else:
        x = F.conv2d(resample(x, taps, 1, 1, (2, 2), 1), weight, stride=2)
    clamp = None if layer.clamp is None else layer.clamp * gain
    return activate(x, layer.bias, 1, layer.activation, ACTIVATION_GAIN[layer.activation] * gain, clamp)


def discriminator_block(block: Block, x: Tensor | None, image: Tensor) -> Tensor:
    """Two convolutions, and the skip where the architecture has one."""
    if block.from_rgb is not None:
        rgb = convolution(block.from_rgb, image)
        x = rgb if x is None else x + rgb
    assert x is not None
    if block.skip is None:
        return convolution(block.conv1, convolution(block.conv0, x))
    skip = convolution(block.skip, x, math.sqrt(0.5))
    return skip + convolution(block.conv1, convolution(block.conv0, x), math.sqrt(0.5))


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """x with the minibatch standard deviation appended as a channel."""
    group = min(group_size, len(x))
    y = x.reshape(group, -1, *x.shape[1:])
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + EPS).sqrt().mean(dim=[1, 2, 3])
    return torch.cat([x, y.reshape(-1, 1, 1, 1).repeat(group, 1, *x.shape[2:])], dim=1)


def discriminator(network: Discriminator, image: Tensor, c: Tensor | None = None) -> Tensor:
    """Images [batch, channels, height, width] and labels to logits [batch, 1]."""
    x: Tensor | None = None
    for block in network.blocks:
        assert isinstance(block, Block)
        x = discriminator_block(block, x, image)
        if network.is_skip:
            image = resample(image, network.resample_filter, 1, 2, (1, 1), 1)
    assert x is not None
    epilogue = network.epilogue
    if epilogue.from_rgb is not None:
        x = x + convolution(epilogue.from_rgb, image)
    x = convolution(epilogue.conv, minibatch_std(x, epilogue.mbstd_group))
    logits = linear(epilogue.out, linear(epilogue.fc, x.flatten(1)))
    if network.mapping_network is None or network.mapping_network.embed is None:
        return logits
    assert c is not None
    projection = normalize_second_moment(linear(network.mapping_network.embed, c))
    for layer in network.mapping_network.layers:
        assert isinstance(layer, EqualizedLinear)
        projection = linear(layer, projection)
    return (logits * projection).sum(dim=1, keepdim=True) / math.sqrt(projection.shape[1])
