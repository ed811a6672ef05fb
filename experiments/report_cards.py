"""One episode on the page: its pictures, its video and its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from goalward.experiments import charts
from goalward.experiments.media import VideoUnavailable, jpeg_uri, mp4_uri, video_frames
from goalward.experiments.replay import Replay
from goalward.experiments.results import EpisodeRecord

SCENE_PX = 400
TILE_PX = 168
_LABELS = {"strict": "reached, strict", "moderate": "close: moderate", "missed": "missed", "failed": "failed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """Pictures and video of one episode, as data URIs."""

    start: tuple[str, ...]
    """First frame of every camera."""
    goal: tuple[str, ...]
    """Goal image of every camera."""
    final: tuple[str, ...]
    """Last frame of every camera."""
    poster: str
    """Picture of the video before it plays: its last frame."""
    width: int
    """Of the video, pixels."""
    height: int
    """Of the video, pixels."""
    video: str | None
    """MP4; None where none could be made."""


def make_media(replay: Replay, record: EpisodeRecord, *, cameras: Sequence[str], dt_s: float, with_video: bool = True) -> Media:
    """Encodes what a replay showed.

    Raises:
        VideoUnavailable: a video is wanted and cannot be encoded.
    """
    tile = SCENE_PX // 2 if replay.scene_Thw3 is not None else TILE_PX
    frames = list(
        video_frames(
            replay.live_TVhw3, replay.goal_Vhw3, distances_m=record.distances_m, cameras=cameras, scene_Thw3=replay.scene_Thw3,
            tile_px=tile, status=_LABELS[record.outcome],
        )
    )  # fmt: skip
    height, width = frames[0].shape[:2]
    return Media(
        start=tuple(map(jpeg_uri, replay.live_TVhw3[0])),
        goal=tuple(map(jpeg_uri, replay.goal_Vhw3)),
        final=tuple(map(jpeg_uri, replay.live_TVhw3[-1])),
        poster=jpeg_uri(frames[-1], quality=70),
        width=width,
        height=height,
        video=mp4_uri(iter(frames), fps=1 / dt_s) if with_video else None,
    )


def try_media(replay: Replay, record: EpisodeRecord, *, cameras: Sequence[str], dt_s: float) -> tuple[Media, str | None]:
    """As `make_media`, but goes without the video when none can be encoded, and says why."""
    try:
        return make_media(replay, record, cameras=cameras, dt_s=dt_s), None
    except VideoUnavailable as error:
        return make_media(replay, record, cameras=cameras, dt_s=dt_s, with_video=False), str(error)


def video_tag(media: Media, *, dt_s: float, label: str, autoplay: bool = False) -> str:
    """The video element, or the last frame where there is no video."""
    size = f'width="{media.width}" height="{media.height}"'
    if media.video is None:
        return f'<img src="{media.poster}" {size} alt="last frame of {escape(label)}">'
    play = f'src="{media.video}" autoplay loop' if autoplay else f'data-src="{media.video}" controls'
    label = f'aria-label="Video of {escape(label)}"'
    return f'<video {play} muted playsinline {size} poster="{media.poster}" data-fps="{1 / dt_s:g}" {label}></video>'


def card(
    episode: EpisodeRecord, media: Media | None, *, title: str, env: Mapping[str, Any], ghosts: Mapping[int, Sequence[float | None]]
) -> str:
    """One episode: outcome, video, start, goal and final images, distance and energy over the steps.

    Args:
        episode: the episode.
        media: its pictures.
        title: such as `Best`; empty for none.
        env: facts about the environment from `results.json`.
        ghosts: index -> distances of the oracle in the same episode.
    """
    final = episode.final_distance_m
    ended = "no final distance" if final == float("inf") else f"{100 * final:.1f} cm"
    facts = f"{episode.steps} steps · {ended}"
    name = f"{title}: {episode.goal_id}" if title else episode.goal_id
    parts = [
        f'<header><h3>{escape(name)}</h3><span class="badge {episode.outcome}">{_LABELS[episode.outcome]}</span>'
        f'<span class="facts">{facts}</span></header>'
    ]
    if episode.failure is not None:
        parts.append(f'<p class="failure">{escape(episode.failure)}</p>')
    if media is not None:
        parts.append(
            f"<div>{video_tag(media, dt_s=env['dt_s'], label=f'episode {episode.goal_id}')}{_stills(episode, media, env['cameras'])}</div>"
        )
    body = []
    scale = 100.0
    thresholds = [scale * env[field] for field in ("strict_tolerance_m", "moderate_tolerance_m") if env.get(field)]
    centimetres = [None if d is None else scale * d for d in episode.distances_m]
    ghost = [None if d is None else scale * d for d in ghosts.get(episode.index, ())]
    shared = {"max_steps": env["max_episode_steps"]}
    body.append(charts.curve(centimetres, name="distance", unit="cm", css="m-planner", thresholds=thresholds, ghost=ghost, **shared))
    if episode.energies is not None:
        body.append(charts.curve(episode.energies, name="latent energy", unit="", css="energy", **shared))
    parts.append(f'<div class="curves">{"".join(body)}</div>')
    shown = 1e9 if final == float("inf") else final
    data = f'data-outcome="{episode.outcome}" data-index="{episode.index}" data-final="{shown:.6g}" data-steps="{episode.steps}"'
    return f'<article class="card" {data}>{"".join(parts)}</article>'


def _stills(episode: EpisodeRecord, media: Media, cameras: Sequence[str]) -> str:
    figures = []
    for role, uris in (("start", media.start), ("goal", media.goal), ("final", media.final)):
        images = "".join(
            f'<img src="{uri}" loading="lazy" alt="{role} image of {escape(episode.goal_id)}, {escape(camera)} camera">'
            for uri, camera in zip(uris, cameras, strict=True)
        )
        figures.append(f'<figure class="{role}"><div class="views">{images}</div><figcaption>{role}</figcaption></figure>')
    return f'<div class="stills">{"".join(figures)}</div>'
