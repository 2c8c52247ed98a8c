"""The two objectives as their formulas stand in the papers, in PyTorch.

The second yardstick of the `objective` suite; see plain_jax.py.
"""

import math

import torch


def unit(z):
    return z / z.norm(dim=-1, keepdim=True)


def hsic_features(z, scale, num_features):
    num_views, batch, dim = z.shape
    n = num_views * batch
    draws = []
    for _ in range(2):
        w = torch.randn(num_features, dim, device=z.device)
        w = w * torch.randn(num_features, 1, device=z.device)
        b = 2 * math.pi * torch.rand(num_features, device=z.device)
        draws.append((2 / num_features) ** 0.5 * torch.cos((z / scale) @ w.T + b))
    of_images = draws[0].sum(dim=0)
    zy = of_images.square().sum() / (n * (num_views - 1))
    zy = zy - of_images.sum(dim=0).square().sum() / n**2
    first, second = (draw.reshape(n, -1) for draw in draws)
    covariance = (first - first.mean(dim=0)).T @ (second - second.mean(dim=0))
    return zy, covariance.square().sum() / n**2


def scale_gradient(z, scale):
    num_views, batch, dim = z.shape
    samples = [
        z[:, torch.randint(batch, (1024 // num_views,), device=z.device)]
        for _ in range(2)
    ]
    samples = [sample.reshape(-1, dim) for sample in samples]
    # The rows are of length 1.
    s = 2 - 2 * samples[0] @ samples[1].T
    return (1 / scale - 3 * scale / (s + scale**2)).mean()


def hsic_step(online, other, num_features, gamma=3.0):
    """An action: loss, gradient and scale update of one step."""
    online = online.requires_grad_()
    scale = torch.nn.Parameter(torch.ones(()))
    adam = torch.optim.Adam([scale], lr=3e-4)

    def step():
        z = unit(torch.cat([online, other]))
        zy, zz = hsic_features(z, scale.detach(), num_features)
        loss = gamma * zz.sqrt() - zy
        (slope,) = torch.autograd.grad(loss, online)
        with torch.no_grad():
            scale.grad = -scale_gradient(z.detach(), scale)
        adam.step()
        return loss, slope

    return step


def legendre(t, q, degree):
    if degree == 1:
        return t
    if degree == 2:
        return (q * t**2 - 1) / (q - 1)
    return ((q + 2) * t**3 - 3 * t) / (q - 1)


def potential(z, coefficients):
    t = z @ z.T
    return sum(
        b * legendre(t, z.shape[1], degree).mean()
        for degree, b in enumerate(coefficients, start=1)
    )


def sfrik_step(z_1, z_2, coefficients, weight=4000.0):
    """An action: loss and gradients of one step."""
    z_1, z_2 = z_1.requires_grad_(), z_2.requires_grad_()

    def step():
        a, b = unit(z_1), unit(z_2)
        spread = (potential(a, coefficients) + potential(b, coefficients)) / 2
        loss = weight * (a - b).square().mean() + spread
        return loss, torch.autograd.grad(loss, (z_1, z_2))

    return step
