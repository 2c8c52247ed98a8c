"""A training step of the two methods in PyTorch, written plainly: a yardstick."""

import copy

import torch
from torch import nn
from torch.nn import functional

from benchmarks import plain_torch


def block(width_in, width, stride, is_bottleneck):
    """A residual block, as its two branches."""
    out = 4 * width if is_bottleneck else width
    kernels = (1, 3, 1) if is_bottleneck else (3, 3)
    widths = [width_in, *([width] * (len(kernels) - 1)), out]
    # The convolution of 3 x 3 strides: in a basic block the first one.
    strides = [stride if i == (1 if is_bottleneck else 0) else 1 for i in range(3)]
    layers = []
    for i, kernel in enumerate(kernels):
        layers.append(
            nn.Conv2d(
                widths[i], widths[i + 1], kernel, strides[i], kernel // 2, bias=False
            )
        )
        layers.append(nn.BatchNorm2d(widths[i + 1]))
        if i + 1 < len(kernels):
            layers.append(nn.ReLU(inplace=True))
    shortcut = nn.Identity()
    if stride > 1 or width_in != out:
        shortcut = nn.Sequential(
            nn.Conv2d(width_in, out, 1, stride, bias=False), nn.BatchNorm2d(out)
        )
    return nn.Sequential(*layers), shortcut, out


class ResNet(nn.Module):
    def __init__(self, depth, has_cifar_stem):
        super().__init__()
        counts, is_bottleneck = {
            18: ((2, 2, 2, 2), False),
            50: ((3, 4, 6, 3), True),
        }[depth]
        if has_cifar_stem:
            stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)]
            stem.append(nn.ReLU(inplace=True))
        else:
            stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)]
            stem += [nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        self.stem = nn.Sequential(*stem)
        self.branches, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        width = 64
        for stage, count in enumerate(counts):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                branch, shortcut, width = block(
                    width, 64 * 2**stage, stride, is_bottleneck
                )
                self.branches.append(branch)
                self.shortcuts.append(shortcut)
        self.width = width

    def forward(self, x):
        x = self.stem(x)
        for branch, shortcut in zip(self.branches, self.shortcuts, strict=True):
            x = functional.relu(branch(x) + shortcut(x))
        return x.mean(dim=(2, 3))


def head(width, widths, normalizes_output):
    layers = []
    for i, out in enumerate(widths):
        is_last = i + 1 == len(widths)
        layers.append(nn.Linear(width, out))
        if not is_last or normalizes_output:
            layers.append(nn.BatchNorm1d(out))
        if not is_last:
            layers.append(nn.ReLU(inplace=True))
        width = out
    return nn.Sequential(*layers)


def make(method, depth, size, projector, views, is_compiled):
    """An action: one step, weights and target network included."""
    encoder = ResNet(depth, size < 64)
    online = nn.Sequential(
        encoder, head(encoder.width, projector, method == "ssl_hsic")
    ).to(memory_format=torch.channels_last)
    target = copy.deepcopy(online).requires_grad_(False)
    predictor = head(projector[-1], projector, True)
    modules = [online, predictor] if method == "ssl_hsic" else [online]
    parameters = [p for module in modules for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-6)
    scale = torch.nn.Parameter(torch.ones(()))
    adam = torch.optim.Adam([scale], lr=3e-4)

    def hsic(views):
        z = torch.cat([predictor(online(view)) for view in views])
        with torch.no_grad():
            others = [target(view) for view in views]
        # Float32 from here on, whatever the networks compute in.
        z = plain_torch.unit(torch.stack([*z.chunk(2), *others]).float())
        zy, zz = plain_torch.hsic_features(z, scale.detach(), 512)
        return 3.0 * zz.sqrt() - zy, z

    def sfrik(views):
        a, b = (plain_torch.unit(online(view).float()) for view in views)
        potential = plain_torch.potential
        weights = (1.0, 40.0, 40.0)
        spread = (potential(a, weights) + potential(b, weights)) / 2
        return 4000.0 * (a - b).square().mean() + spread, None

    loss_of = {"ssl_hsic": hsic, "sfrik": sfrik}[method]
    if is_compiled:
        loss_of = torch.compile(loss_of)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss, z = loss_of(views)
        loss.backward()
        optimizer.step()
        if method == "ssl_hsic":
            with torch.no_grad():
                slope = plain_torch.scale_gradient(z.detach().float(), scale)
                # Autocast has its products in half precision.
                scale.grad = -slope.float()
                adam.step()
                torch._foreach_lerp_(
                    list(target.parameters()), list(online.parameters()), 0.01
                )
        return loss

    return step
