"""The two objectives as their formulas stand in the papers, in JAX.

What a careful reader would write: the yardstick of the `objective` suite. The library
is not used here.
"""

import jax
import jax.numpy as jnp


def unit(z):
    return z / jnp.linalg.norm(z, axis=1, keepdims=True)


def hsic_features(z, scale, key, num_features):
    """(HSIC(Z, Y), HSIC(Z, Z)) by two draws of random features; z (M, B, d)."""
    num_views, batch, dim = z.shape
    n = num_views * batch
    draws = []
    for part in jax.random.split(key):
        directions, amplitudes, phases = jax.random.split(part, 3)
        w = jax.random.normal(directions, (num_features, dim))
        w = w * jax.random.normal(amplitudes, (num_features, 1))
        b = jax.random.uniform(phases, (num_features,), maxval=2 * jnp.pi)
        draws.append((2 / num_features) ** 0.5 * jnp.cos((z / scale) @ w.T + b))
    first, second = draws
    of_images = first.sum(axis=0)
    zy = jnp.sum(of_images**2) / (n * (num_views - 1))
    zy = zy - jnp.sum(of_images.sum(axis=0) ** 2) / float(n) ** 2
    first, second = (draw.reshape(n, -1) for draw in draws)
    covariance = (first - first.mean(axis=0)).T @ (second - second.mean(axis=0))
    return zy, jnp.sum(covariance**2) / float(n) ** 2


def hsic_gram(z, scale, key, num_features):
    """The same, exactly, from the Gram matrix."""
    num_views, batch, _ = z.shape
    n = num_views * batch
    rows = z.reshape(n, -1)
    squares = jnp.sum(rows**2, axis=1)
    distances = jnp.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0)
    gram = scale / jnp.sqrt(scale**2 + distances)
    same = jnp.tile(jnp.eye(batch), (num_views, num_views))
    zy = jnp.sum(same * gram) / (n * (num_views - 1)) - gram.mean()
    zz = jnp.mean(gram**2) - 2 * jnp.mean(gram.mean(axis=1) ** 2) + gram.mean() ** 2
    return zy, zz


def scale_gradient(z, scale, key):
    """dJ/dc between two samples of rows, with replacement."""
    num_views, batch, dim = z.shape
    samples = []
    for part in jax.random.split(key):
        index = jax.random.randint(part, (1024 // num_views,), 0, batch)
        samples.append(z[:, index].reshape(-1, dim))
    # The rows are of length 1.
    s = 2 - 2 * samples[0] @ samples[1].T
    return jnp.mean(1 / scale - 3 * scale / (s + scale**2))


def hsic_step(form, num_features, gamma=3.0):
    """Function (online views (2, B, d), others (2, B, d), state) -> what it gives."""

    def loss(online, other, scale, key):
        z = jax.vmap(unit)(jnp.concatenate([online, other]))
        zy, zz = form(z, scale, key, num_features)
        return gamma * jnp.sqrt(zz) - zy, z

    @jax.jit
    def step(online, other, scale, moments, key):
        key, draws, sample = jax.random.split(key, 3)
        (value, z), slope = jax.value_and_grad(loss, has_aux=True)(
            online, other, scale, draws
        )
        gradient = scale_gradient(jax.lax.stop_gradient(z), scale, sample)
        first, second, steps = moments
        steps = steps + 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = first / (1 - 0.9**steps)
        move = move / (jnp.sqrt(second / (1 - 0.999**steps)) + 1e-8)
        return value, slope, scale + 3e-4 * move, (first, second, steps), key

    return step


def legendre(t, q, degree):
    if degree == 1:
        return t
    if degree == 2:
        return (q * t**2 - 1) / (q - 1)
    return ((q + 2) * t**3 - 3 * t) / (q - 1)


def sfrik_step(coefficients, weight=4000.0):
    """Function (z_1, z_2), each (B, q), -> loss and gradients."""

    def potential(z):
        t = z @ z.T
        q = z.shape[1]
        return sum(
            b * jnp.mean(legendre(t, q, degree))
            for degree, b in enumerate(coefficients, start=1)
        )

    def loss(z_1, z_2):
        z_1, z_2 = unit(z_1), unit(z_2)
        invariance = jnp.mean((z_1 - z_2) ** 2)
        return weight * invariance + (potential(z_1) + potential(z_2)) / 2

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
