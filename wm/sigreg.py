"""Sketched isotropic Gaussian regularisation: keeps embeddings from collapsing.

It needs no negative pairs, teachers or stop-gradients.

Letters: K samples, E embedding width, P random directions, Q knots of the quadrature.

A distribution is an isotropic Gaussian exactly when each of its one-dimensional projections is a standard normal
(Cramer-Wold).
Each projection is judged by the Epps-Pulley statistic: the weighted squared distance of its empirical characteristic
function
from exp(-t^2 / 2). Sources: Epps and Pulley, Biometrika 70 (1983); Balestriero and LeCun, "LeJEPA", arXiv 2511.08544.
"""

from __future__ import annotations

import torch
from torch import Tensor

from goalward import UserError


def epps_pulley(x_KP: Tensor, *, knots: int = 17, t_max: float = 3.0) -> Tensor:
    """Measures how far one-dimensional samples are from a standard normal.

    Args:
        x_KP: K samples of each of P projections, float.
        knots: Points of the trapezoidal quadrature over t in [0, t_max].
        t_max: End of the integral; exp(-t^2 / 2) makes the rest negligible.

    Returns:
        [P], the integral of |phi_sample(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) over the whole line. It is 0 for the
        normal itself, and has the
        expectation (sqrt(2 pi) - sqrt(2 pi / 3)) / K = 1.06 / K for K independent normal samples.

    Raises:
        UserError: `knots` or `t_max` out of range.
    """
    if knots < 3:
        raise UserError(f"knots = {knots}: must be at least 3; use 17")
    if not t_max > 0:
        raise UserError(f"t_max = {t_max}: must be above 0; use 3")
    t_Q = torch.linspace(0.0, t_max, knots, dtype=x_KP.dtype, device=x_KP.device)
    phi_Q = torch.exp(-0.5 * t_Q.square())
    weight_Q = torch.full_like(t_Q, 2.0 * t_max / (knots - 1))  # twice: the integrand is even in t
    weight_Q[0] *= 0.5
    weight_Q[-1] *= 0.5
    phase_KPQ = x_KP.unsqueeze(-1) * t_Q
    error_PQ = (phase_KPQ.cos().mean(0) - phi_Q).square() + phase_KPQ.sin().mean(0).square()
    return error_PQ @ (weight_Q * phi_Q)


def sigreg(z_KE: Tensor, *, generator: torch.Generator, directions: int = 256, knots: int = 17) -> Tensor:
    """Penalises embeddings for not being distributed as an isotropic standard Gaussian.

    Args:
        z_KE: K embeddings of width E, float32.
        generator: Draws the random directions, anew at each call; on the CPU.
        directions: Number P of random directions.
        knots: Quadrature points.

    Returns:
        Scalar, the mean Epps-Pulley statistic over the directions (not multiplied by K).

    Raises:
        UserError: `directions` is below 1, or there are fewer than two embeddings.
    """
    if directions < 1:
        raise UserError(f"directions = {directions}: must be at least 1; use 256")
    if z_KE.ndim != 2 or z_KE.shape[0] < 2:
        raise UserError(f"embeddings have shape {tuple(z_KE.shape)}: need [K, E] with K at least 2; use a larger batch")
    direction_EP = torch.randn(z_KE.shape[1], directions, generator=generator).to(z_KE)
    direction_EP = direction_EP / direction_EP.norm(dim=0, keepdim=True)
    return epps_pulley(z_KE @ direction_EP, knots=knots).mean()
