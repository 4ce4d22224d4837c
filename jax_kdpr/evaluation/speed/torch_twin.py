"""The same system in PyTorch, for side-by-side timing only; nothing else imports this file.

It is plain eager PyTorch as an experienced user would write it: batched complex FFTs without Python
loops over samples or snapshots, channels-last convolutions, no work repeated within an iteration.
Every function mirrors one of ours and has its conventions. `benchmark --against torch` first checks
that the two give the same CDP, estimate and image from the same weights.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def scene_field(images: Tensor, phase_range: float) -> Tensor:
    """Encodes phase scenes [b h w 1] in [0, 1] as fields e^{j r img} [b h w]."""
    phase = phase_range * images[..., 0]
    return torch.polar(torch.ones_like(phase), phase)


def measure_intensity(field: Tensor, phases: Tensor) -> Tensor:
    """Returns the CDPs |F A x|^2 [b k h w] of fields [b h w] through masks [k h w]."""
    mask = torch.polar(torch.ones_like(phases), phases)
    spectra = torch.fft.fft2(mask.conj() * field[:, None], norm="ortho")
    return spectra.real.square() + spectra.imag.square()


def filter_response(kernel: Tensor, size: int) -> Tensor:
    """Returns the DFT of the filter taps, with the centre tap at [0, 0]."""
    taps = kernel.shape[0]
    padded = F.pad(kernel, (0, size - taps, 0, size - taps))
    return torch.fft.fft2(torch.roll(padded, (-(taps // 2), -(taps // 2)), dims=(0, 1)))


def spectral_init(
    intensity: Tensor, phases: Tensor, kernel: Tensor, start: Tensor, iterations: int
) -> Tensor:
    """Returns estimates [b h w] from CDPs [b k h w]: algorithm 1 with soft weights, unrolled."""
    ratio = intensity / intensity.mean(dim=(1, 2, 3), keepdim=True)
    weight = ratio / (1.0 + ratio)
    mask = torch.polar(torch.ones_like(phases), phases)
    unmask = mask.conj()
    response = filter_response(kernel, phases.shape[-1]) / phases.shape[0]
    z = (start / torch.linalg.vector_norm(start)).expand(intensity.shape[0], -1, -1)
    for _ in range(iterations):
        spectra = weight * torch.fft.fft2(unmask * z[:, None], norm="ortho")
        back = (mask * torch.fft.ifft2(spectra, norm="ortho")).sum(dim=1)
        z = torch.fft.ifft2(response * torch.fft.fft2(back))
        z = z / torch.linalg.vector_norm(z, dim=(1, 2), keepdim=True)
    scale = torch.sqrt(intensity.sum(dim=(1, 2, 3)) / phases.shape[0])
    return scale[:, None, None] * z


class ConvBlock(nn.Sequential):
    """A 3 x 3 convolution, batch norm and ReLU, all twice."""

    def __init__(self, before: int, after: int):
        super().__init__(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """`networks.unet.UNet` with batch norm; channels come first, in channels-last memory."""

    def __init__(self, widths: tuple[int, ...], in_channels: int = 2, out_channels: int = 1):
        super().__init__()
        before = (in_channels, *widths[:-1])
        self.encoder = nn.ModuleList(ConvBlock(b, a) for b, a in zip(before, widths, strict=True))
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.decoder = nn.ModuleList(ConvBlock(deep + skip, skip) for deep, skip in pairs)
        self.head = nn.Conv2d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (image [b c h w] in (0, 1), bottleneck)."""
        skips = []
        for block in self.encoder[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        bottleneck = x = self.encoder[-1](x)
        for block, skip in zip(self.decoder, reversed(skips), strict=True):
            up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([up, skip], dim=1))
        return torch.sigmoid(self.head(x)), bottleneck


class System(nn.Module):
    """Masks, filter and network, with the parameters of one of our systems."""

    def __init__(
        self,
        params: dict[str, Any],
        state: dict[str, Any],
        *,
        widths: tuple[int, ...],
        phase_range: float,
        iterations: int,
    ):
        super().__init__()
        self.phase_range, self.iterations = phase_range, iterations
        self.phases = nn.Parameter(_tensor(params["phases"]))
        self.filter = nn.Parameter(_tensor(params["filter"]))
        self.register_buffer("start", _tensor(state["start"]))
        self.net = UNet(widths)
        _load_net(self.net, params["net"], state["net"])
        self.net.to(memory_format=torch.channels_last)

    def measure(self, images: Tensor) -> Tensor:
        """Returns the CDPs of a batch of images [b h w 1]."""
        return measure_intensity(scene_field(images, self.phase_range), self.phases)

    def estimate(self, intensity: Tensor) -> Tensor:
        """Returns the spectral estimates of a batch of CDPs."""
        return spectral_init(intensity, self.phases, self.filter, self.start, self.iterations)

    def run_net(self, estimate: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (image [b 1 h w], bottleneck) from estimates."""
        inputs = torch.view_as_real(estimate).permute(0, 3, 1, 2)  # channels last by strides
        return self.net(inputs.contiguous(memory_format=torch.channels_last))

    def recover(self, intensity: Tensor) -> Tensor:
        """Returns images [b 1 h w] from CDPs."""
        return self.run_net(self.estimate(intensity))[0]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (CDPs, image, bottleneck) of a batch of images."""
        intensity = self.measure(images)
        image, bottleneck = self.run_net(self.estimate(intensity))
        return intensity, image, bottleneck


Targets = tuple[Tensor, Tensor]  # the teacher's mean CDP [b h w] and bottleneck


def teach(teacher: System, images: Tensor) -> Targets:
    """Returns the frozen teacher's targets for a batch."""
    with torch.no_grad():
        intensity, _, bottleneck = teacher(images)
    return intensity.mean(dim=1), bottleneck


def make_step(
    system: System,
    *,
    weights: dict[str, float],
    rates: dict[str, float],
    wrap: Callable[[Callable], Callable] = lambda fn: fn,
) -> Callable[..., Tensor]:
    """Returns step(images, targets) -> loss: forward, backward and Adam on masks, filter and net.

    `weights` has the loss weights task, mask, cdp and feature (eq. 7); `rates` has the learning
    rates of phases, filter and net; `wrap` is `torch.compile`, or nothing. A step changes `system`.
    """
    optimizer = torch.optim.Adam(
        [
            {"params": [system.phases], "lr": rates["phases"]},
            {"params": [system.filter], "lr": rates["filter"]},
            {"params": list(system.net.parameters()), "lr": rates["net"]},
        ]
    )

    def loss_of(images: Tensor, targets: Targets | None) -> Tensor:
        intensity, image, bottleneck = system(images)
        loss = weights["task"] * (image[:, 0] - images[..., 0]).square().mean()
        outside = torch.relu(-system.phases) + torch.relu(system.phases - 2 * np.pi)
        loss = loss + weights["mask"] * outside.square().mean()
        if targets is not None:
            cdp, feature = targets
            loss = loss + weights["cdp"] * (cdp - intensity.mean(dim=1)).square().mean()
            loss = loss + weights["feature"] * (feature - bottleneck).square().mean()
        return loss

    loss_fn = wrap(loss_of)

    def step(images: Tensor, targets: Targets | None = None) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_fn(images, targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))  # a copy: training here must not reach our arrays


def _load_net(net: UNet, params: dict[str, Any], stats: dict[str, Any]) -> None:
    """Copies the weights of our network, plain dicts as `nnx.to_pure_dict` gives, into `net`."""
    for part in ("encoder", "decoder"):
        for number, block in enumerate(getattr(net, part)):
            ours, moments = params[part][number], stats[part][number]
            for conv, norm, name in ((block[0], block[1], "first"), (block[3], block[4], "second")):
                _copy(conv.weight, np.transpose(ours[name]["kernel"], (3, 2, 0, 1)))
                _copy(norm.weight, ours[f"{name}_norm"]["scale"])
                _copy(norm.bias, ours[f"{name}_norm"]["bias"])
                _copy(norm.running_mean, moments[f"{name}_norm"]["mean"])
                _copy(norm.running_var, moments[f"{name}_norm"]["var"])
    _copy(net.head.weight, np.transpose(params["head"]["kernel"], (3, 2, 0, 1)))
    _copy(net.head.bias, params["head"]["bias"])


def _copy(to: Tensor, array: Any) -> None:
    with torch.no_grad():
        to.copy_(_tensor(array))
