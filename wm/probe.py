"""How good are latents? Collapse diagnostics, linear probes, and whether latent distance ranks true distance.

Letters: K samples, E feature width, Y target width (3 for a position).

A probe is ridge regression, its strength chosen on validation samples; the same procedure serves every reference
(latents of a
random-weight network of the same shape, downsampled raw pixels), so that the numbers compare features and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from goalward import UserError
from goalward.wm.base import Encoder

RIDGE_STRENGTHS = tuple(float(value) for value in 10.0 ** np.arange(-7.0, 2.5, 0.5))
"""Candidates for the ridge penalty, relative to the mean feature variance times the number of samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CollapseReport:
    """Is the latent space used?"""

    effective_rank: float
    """exp(entropy of the normalised covariance spectrum), from 1 to `width`; Roy and Vetterli, EUSIPCO 2007."""
    participation_ratio: float
    """(sum of eigenvalues)^2 / sum of their squares: another, stricter count of directions in use."""
    width: int
    """Feature width E."""
    std_mean: float
    """Mean over features of their standard deviation."""
    std_min: float
    """Smallest standard deviation of a feature."""
    dead_fraction: float
    """Share of features whose standard deviation is below 1 % of the mean one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """Error of a linear read-out on held-out samples, in units of the target (metres for positions)."""

    mean_error: float
    """Mean Euclidean error."""
    median_error: float
    """Median Euclidean error."""
    p90_error: float
    """90th percentile."""
    r2: float
    """Share of the target's variance explained, all entries together."""
    ridge: float
    """Chosen strength."""


def collapse_report(z_KE: Tensor) -> CollapseReport:
    """Measures the spectrum of features.

    Args:
        z_KE: Float features of K samples, K at least 2.

    Raises:
        UserError: Fewer than two samples, or values that are not finite.
    """
    if z_KE.ndim != 2 or z_KE.shape[0] < 2:
        raise UserError(f"latents have shape {tuple(z_KE.shape)}: need [K, E] with K at least 2")
    z_KE = z_KE.double()
    if not bool(torch.isfinite(z_KE).all()):
        raise UserError("latents hold values that are not finite; the encoder is broken")
    std_E = z_KE.std(0)
    spectrum = torch.linalg.svdvals(z_KE - z_KE.mean(0)).square()
    total = spectrum.sum()
    if float(total) <= 1e-24 * max(float(z_KE.square().sum()), 1e-24):
        rank, ratio = 1.0, 1.0  # complete collapse: a constant
    else:
        share = spectrum / total
        rank = float(torch.exp(-torch.special.xlogy(share, share).sum()))
        ratio = float(1.0 / share.square().sum())
    mean = float(std_E.mean())
    return CollapseReport(
        effective_rank=rank,
        participation_ratio=ratio,
        width=z_KE.shape[1],
        std_mean=mean,
        std_min=float(std_E.min()),
        dead_fraction=float((std_E <= 0.01 * mean).double().mean()),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearReadout:
    """y = (x - x_mean) w + y_mean."""

    x_mean_E: Tensor
    y_mean_Y: Tensor
    w_EY: Tensor
    ridge: float
    """Strength that was chosen, relative to the mean eigenvalue of the features' scatter."""

    def read(self, x_KE: Tensor) -> Tensor:
        """Reads targets [..., Y] from features [..., E], in the precision of the fit."""
        return (x_KE.to(self.w_EY.dtype) - self.x_mean_E) @ self.w_EY + self.y_mean_Y


def fit_readout(
    train: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], strengths: tuple[float, ...] = RIDGE_STRENGTHS
) -> LinearReadout:
    """Fits a linear read-out on `train`, and chooses its strength on `validation`; float64.

    Args:
        train: Features [K, E] and targets [K, Y].
        validation: The same, of other episodes.
        strengths: Candidates, as `RIDGE_STRENGTHS`.

    Raises:
        UserError: A split is empty, shapes disagree, or values are not finite.
    """
    _check_splits(train=train, validation=validation)
    x_KE, y_KY = train[0].double(), train[1].double()
    x_mean, y_mean = x_KE.mean(0), y_KY.mean(0)
    x_KE, y_KY = x_KE - x_mean, y_KY - y_mean
    # One eigendecomposition serves all strengths: W = Q (L + s)^-1 Q' X'Y.
    values_E, basis_EE = torch.linalg.eigh(x_KE.T @ x_KE)
    cross_EY = basis_EE.T @ (x_KE.T @ y_KY)
    scale = values_E.clamp_min(0).mean().clamp_min(1e-300)

    def readout(strength: float) -> LinearReadout:
        w_EY: Tensor = basis_EE @ (cross_EY / (values_E.clamp_min(0) + strength * scale).unsqueeze(1))
        return LinearReadout(x_mean_E=x_mean, y_mean_Y=y_mean, w_EY=w_EY, ridge=strength)

    candidates = [readout(strength) for strength in strengths]
    return min(candidates, key=lambda found: float((found.read(validation[0]) - validation[1].double()).norm(dim=1).mean()))


def ridge_probe(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    strengths: tuple[float, ...] = RIDGE_STRENGTHS,
) -> ProbeResult:
    """Fits a linear read-out on `train`, chooses its strength on `validation`, measures it on `test`.

    Args:
        train: Features [K, E] and targets [K, Y].
        validation: The same, of other episodes.
        test: The same, of yet other episodes.
        strengths: Candidates, as `RIDGE_STRENGTHS`.

    Raises:
        UserError: A split is empty, shapes disagree, or values are not finite.
    """
    _check_splits(train=train, validation=validation, test=test)
    readout = fit_readout(train, validation, strengths)
    residual_KY = readout.read(test[0]) - test[1].double()
    error_K = residual_KY.norm(dim=1)
    variance = (test[1].double() - test[1].double().mean(0)).square().sum()
    return ProbeResult(
        mean_error=float(error_K.mean()),
        median_error=float(error_K.median()),
        p90_error=float(error_K.quantile(0.9)),
        r2=float(1 - residual_KY.square().sum() / variance.clamp_min(1e-300)),
        ridge=readout.ridge,
    )


def _check_splits(**splits: tuple[Tensor, Tensor]) -> None:
    width = splits["train"][0].shape[-1]
    for name, (x, y) in splits.items():
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2 or x.shape[1] != width:
            raise UserError(f"{name} split: features {tuple(x.shape)}, targets {tuple(y.shape)}; need [K, E], [K, Y], K at least 2")
        if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
            raise UserError(f"{name} split holds values that are not finite")


def rank_correlation(a_K: Tensor, b_K: Tensor) -> float:
    """Spearman's rank correlation of two series without ties (ties are ranked in order of appearance)."""
    ranks = [values.double().argsort(stable=True).argsort(stable=True).double() for values in (a_K, b_K)]
    stacked = torch.stack(ranks)
    return float(torch.corrcoef(stacked)[0, 1])


def distance_ranking(
    z_KE: Tensor, y_KY: Tensor, *, generator: torch.Generator, pairs: int = 20_000, near: float = 0.10
) -> tuple[float, float]:
    """Asks whether latent distance ranks true distance: a planner walks down the former to reduce the latter.

    Args:
        z_KE: Latents of K samples.
        y_KY: Their true positions.
        generator: Draws the pairs.
        pairs: Number of random pairs.
        near: Pairs closer than this, in the unit of `y_KY`, are also judged by themselves.

    Returns:
        Spearman correlation over all pairs, and over the near pairs (nan where fewer than 10 are near).
    """
    first, second = (torch.randint(len(z_KE), (pairs,), generator=generator) for _ in range(2))
    keep = first != second
    latent = (z_KE[first[keep]] - z_KE[second[keep]]).norm(dim=1)
    true = (y_KY[first[keep]] - y_KY[second[keep]]).norm(dim=1)
    close = true < near
    return rank_correlation(latent, true), rank_correlation(latent[close], true[close]) if int(close.sum()) >= 10 else float("nan")


def encoder_features(encoder: Encoder, pixels_KVhw3: NDArray[np.uint8]) -> Tensor:
    """Encodes frames of all views.

    Returns:
        float32 [K, V N D]: the tokens of all views of a moment, end to end.
    """
    count, views = pixels_KVhw3.shape[:2]
    z_MND = encoder.encode(pixels_KVhw3.reshape(count * views, *pixels_KVhw3.shape[2:]))
    return z_MND.cpu().reshape(count, -1)


def pixel_features(pixels_KVhw3: NDArray[np.uint8], *, side: int = 16) -> Tensor:
    """Averages frames down to `side` x `side` colours.

    Returns:
        float32 [K, V side side 3] in 0..1.
    """
    count, views, height, width = pixels_KVhw3.shape[:4]
    if height % side or width % side:
        raise UserError(f"side = {side}: must divide the image size {height} x {width}")
    small = torch.empty(count, views, 3, side, side)
    for start in range(0, count, 256):  # bounded memory: float pixels are four times the bytes
        chunk = torch.from_numpy(np.ascontiguousarray(pixels_KVhw3[start : start + 256])).flatten(0, 1)
        pooled = F.avg_pool2d(chunk.permute(0, 3, 1, 2).float() / 255, (height // side, width // side))
        small[start : start + 256] = pooled.reshape(-1, views, 3, side, side)
    return small.flatten(1)
