"""The page of an evaluation: one HTML file that needs no network, from `results.json`'s content and replayed episodes.

results, replays  ->  figures (charts.py), cards (report_cards.py), tables  ->  report.html with report.css and report.js inside
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from typing import Any

from goalward.experiments import charts
from goalward.experiments.charts import percent
from goalward.experiments.report_cards import Media, card, video_tag
from goalward.experiments.results import EpisodeRecord
from goalward.experiments.statistics import percentile, rank_correlation

_FEATURED_NOTE = "Ranked by outcome, then by steps or final distance. Point at a curve to scrub its video; the dashed curve is the oracle."
_KNOWN_CLASSES = {"hold": "m-hold", "random": "m-random", "oracle": "m-oracle"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """Which episodes get a card."""

    best: int
    median: int
    worst: int
    others: tuple[int, ...]
    """Episodes with a small card, in order."""

    @property
    def featured(self) -> tuple[int, ...]:
        """Best, median and worst without repetition (there may be fewer than three episodes)."""
        return tuple(dict.fromkeys((self.best, self.median, self.worst)))


def choose_episodes(episodes: Sequence[EpisodeRecord], *, max_cards: int) -> Chosen:
    """Picks the episodes to show: best, median, worst; then all, or those that went wrong and an even sample of the rest.

    Better is: strict before moderate before missed before failed; then fewer steps for a strict success, a smaller final distance for
    the others.

    Args:
        episodes: of the planner, at least one.
        max_cards: bound on the number of cards, at least 3.
    """
    order = ("strict", "moderate", "missed", "failed")

    def badness(episode: EpisodeRecord) -> tuple[float, ...]:
        rank = order.index(episode.outcome)
        last = episode.final_distance_m
        return (rank, episode.steps, last) if rank == 0 else (rank, last, -episode.steps)

    ranked = [e.index for e in sorted(episodes, key=badness)]
    best, median, worst = ranked[0], ranked[len(ranked) // 2], ranked[-1]
    rest = [index for index in reversed(ranked) if index not in (best, median, worst)]
    room = max(0, max_cards - 3)
    if len(rest) > room:
        wrong = [e.index for e in episodes if e.outcome != "strict"]
        kept = [index for index in rest if index in wrong][: (room + 1) // 2]
        pool = [index for index in rest if index not in kept]
        left = room - len(kept)
        kept += [pool[round(k * (len(pool) - 1) / max(1, left - 1))] for k in range(left)]
        rest = list(dict.fromkeys(kept))
    return Chosen(best=best, median=median, worst=worst, others=tuple(sorted(rest)))


def build_page(results: Mapping[str, Any], *, chosen: Chosen, media: Mapping[int, Media], notes: Sequence[str] = ()) -> str:
    """Builds the page.

    Args:
        results: the content of `results.json`.
        chosen: which episodes get cards.
        media: pictures and videos of those episodes.
        notes: remarks about the media, such as why there are no videos.

    Returns:
        The HTML text.
    """
    methods, env = results["methods"], results["env"]
    planner = next((m for m in methods if m.get("role") == "planner"), methods[0])
    classes = {m["name"]: "m-planner" if m is planner else _KNOWN_CLASSES.get(m["name"], "m-hold") for m in methods}
    by_method = {m["name"]: [EpisodeRecord.from_json(e) for e in results["episodes"] if e["method"] == m["name"]] for m in methods}
    own = {e.index: e for e in by_method[planner["name"]]}
    ghosts = {e.index: e.distances_m for e in by_method.get("oracle", [])}
    shared: dict[str, Any] = {"env": env, "ghosts": ghosts}
    labels: dict[int, list[str]] = {}
    for name in ("best", "median", "worst"):
        labels.setdefault(getattr(chosen, name), []).append(name)
    strict = planner["strict"]
    slots = {
        "title": f"{env['name']} · {planner['name']}: {percent(strict['rate'])} strict success",
        "headline": f"<em>{percent(strict['rate'])}</em> of goal images reached",
        "lede": _lede(results, planner),
        "subject": f"{escape(env['name'])} · {escape(planner['name'])}",
        "interval_chart": charts.interval_bars(methods, classes=classes),
        "hero_figure": _hero(own[chosen.best], media.get(chosen.best), results),
        "tiles": _tiles(results, planner),
        "method_note": _method_note(env),
        "method_table": _method_table(results, classes),
        "figures": _figures(results, planner, by_method, classes),
        "featured_note": " ".join([_FEATURED_NOTE, *map(escape, notes)]),
        "featured": "".join(card(own[i], media.get(i), title=" and ".join(labels[i]).capitalize(), **shared) for i in chosen.featured),
        "others_title": _others_title(chosen, own),
        "others": "".join(card(own[i], media.get(i), title="", **shared) for i in chosen.others),
        "episode_table": _episode_table(by_method, planner["name"]),
        "command": escape(results["command"]),
        "provenance": _provenance(results),
        "footer": f"Made by goalward {escape(str(results['versions'].get('goalward', '')))} on {escape(results['created'])}. "
        "This file holds everything it shows and needs no network.",
    }  # fmt: skip
    files = resources.files("goalward.experiments")
    page = (files / "report.html").read_text(encoding="utf-8")
    slots |= {"css": (files / "report.css").read_text(encoding="utf-8"), "js": (files / "report.js").read_text(encoding="utf-8")}
    if not slots["hero_figure"]:
        page = page.replace('class="hero"', 'class="hero alone"')
    return re.sub(r"\{\{(\w+)\}\}", lambda match: slots[match[1]], page)


def cm(distance_m: float | None) -> str:
    """A distance in centimetres; a dash where there is none."""
    return "–" if distance_m is None or not math.isfinite(distance_m) else f"{100 * distance_m:.1f}"


def _lede(results: Mapping[str, Any], planner: Mapping[str, Any]) -> str:
    strict, env, config = planner["strict"], results["env"], results["config"]
    count = len(env["cameras"])
    views = "one camera view" if count == 1 else f"{count} camera views"
    return (
        f"{strict['successes']} of {strict['trials']} held-out {escape(config['split'])} goals of {escape(env['version'])}; 95 % interval "
        f"{percent(strict['low'])} to {percent(strict['high'])}. The planner sees the goal image, {views} of {env['image_size_px']} px and "
        "the arm's own position, never the goal's."
    )


def _hero(episode: EpisodeRecord, media: Media | None, results: Mapping[str, Any]) -> str:
    if media is None or media.video is None:
        return ""
    video = video_tag(media, dt_s=results["env"]["dt_s"], autoplay=True, label="the best episode")
    seconds = episode.steps * results["env"]["dt_s"]
    ended = f"{episode.steps} steps, {seconds:.1f} s, {cm(episode.final_distance_m)} cm at the end"
    caption = f"Best episode, {escape(episode.goal_id)}: {ended}. In real time."
    return f'<figure class="card-free">{video}<figcaption>{caption}</figcaption></figure>'


def _tiles(results: Mapping[str, Any], planner: Mapping[str, Any]) -> str:
    plan, final, steps = planner["plan_ms"], planner["final_distance_m"], planner["steps_to_success"]
    dt_s = results["env"]["dt_s"]
    tiles = [
        (f"{cm(final['median'])} <small>cm</small>", f"median final distance; 90 % within {cm(final['p90'])} cm"),
        (
            f"{percent(planner['moderate']['rate'])}",
            f"moderate success; {percent(planner['moderate']['low'])} to {percent(planner['moderate']['high'])}",
        ),
    ]
    if steps["median"] is not None:
        tiles.append(
            (f"{steps['median']:g} <small>steps</small>", f"median to strict success, {steps['median'] * dt_s:.1f} s of robot time")
        )
    if plan["p50"] is not None:
        rate = f"{1e3 / plan['p50']:.0f}" if plan["p50"] < 500 else f"{1e3 / plan['p50']:.1f}"
        tiles.append((f"{plan['p50']:.0f} <small>ms</small>", f"median decision, {rate} a second; p95 {plan['p95']:.0f} ms"))
    detection = results.get("detection")
    if detection and detection["episodes"]["precision"] is not None:
        true, recall = detection["episodes"]["precision"], detection["frames"]["recall"]
        about = f"of {true['trials']} claims of success, by latents alone, were true"
        tiles.append((percent(true["rate"]), about + ("" if recall is None else f"; {percent(recall['rate'])} of near frames seen")))
    decisions = planner.get("decisions")
    if decisions and decisions["stop_reasons"].get("deadline"):
        cut = decisions["stop_reasons"]["deadline"]
        about = f"iterations a plan at the median; {cut} of {decisions['planned']} ended by deadline"
        tiles.append((f"{decisions['iterations']['p50']:g}", about))
    if decisions and decisions["reused"]:
        share = decisions["reused"] / (decisions["reused"] + decisions["planned"])
        tiles.append((percent(share), f"of actions from an earlier plan; {decisions['surprised']} surprises"))
    if planner.get("failures"):
        tiles.append((str(planner["failures"]), "episodes broken off as failed"))
    return "".join(f'<div class="tile"><b>{value}</b><span>{about}</span></div>' for value, about in tiles)


def _method_note(env: Mapping[str, Any]) -> str:
    strict = env.get("strict_tolerance_m")
    definition = ""
    if strict is not None:
        definition = (
            f"Strict: within {100 * strict:g} cm of the goal at {env['strict_steps']} steps running. "
            f"Moderate: within {100 * env['moderate_tolerance_m']:g} cm at the end. "
        )
    return definition + "Every method starts from the same states, seeks the same goals and draws from the same seeds."


def _method_table(results: Mapping[str, Any], classes: Mapping[str, str]) -> str:
    paired = {row["against"]: row for row in results.get("paired", [])}

    def rate(figures: Mapping[str, Any]) -> str:
        return f"{percent(figures['rate'])} <small>{100 * figures['low']:.1f}–{100 * figures['high']:.1f}</small>"

    rows = []
    for method in results["methods"]:
        plan, steps, final = method["plan_ms"], method["steps_to_success"], method["final_distance_m"]
        test = paired.get(method["name"])
        versus = "" if test is None else f"{test['wins']} : {test['losses']} <small>p {_p_value(test['p_value'])}</small>"
        times = "–" if plan["p50"] is None else " / ".join(f"{plan[p]:.0f}" for p in ("p50", "p95", "p99"))
        reached = "–" if steps["median"] is None else f"{steps['median']:g}"
        role = "" if method["role"] == "planner" else f" <small>{escape(method['role'])}</small>"
        rows.append(
            f'<tr class="{escape(method["role"].split()[0])}"><td><span class="{classes[method["name"]]}"><i class="swatch"></i></span>'
            f"{escape(method['name'])}{role}</td><td>{rate(method['strict'])}</td><td>{rate(method['moderate'])}</td>"
            f"<td>{cm(final['median'])} / {cm(final['p90'])}</td><td>{reached}</td><td>{times}</td>"
            f"<td>{method['failures'] or '–'}</td><td>{versus}</td></tr>"
        )
    return (
        "<table><thead><tr><th>method</th><th>strict success<br>95 % interval</th><th>moderate success<br>95 % interval</th>"
        "<th>final distance, cm<br>median / p90</th><th>steps to success<br>median</th><th>decision, ms<br>p50 / p95 / p99</th>"
        "<th>failed</th><th>planner wins : losses<br>exact paired test</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _p_value(p: float) -> str:
    return f"= {p:.2f}" if p >= 0.01 else f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def _figures(
    results: Mapping[str, Any], planner: Mapping[str, Any], by_method: Mapping[str, Sequence[EpisodeRecord]], classes: Mapping[str, str]
) -> str:
    env = results["env"]
    key = "".join(
        f'<span class="{css}"><i class="swatch"></i><span style="color:var(--soft)">{escape(name)}</span></span>'
        for name, css in classes.items()
    )
    figures = [
        _figure(
            "Success over steps",
            "Share of goals reached strictly within so many steps.",
            charts.success_over_steps(
                {name: [e.steps if e.strict else None for e in episodes] for name, episodes in by_method.items()},
                max_steps=env["max_episode_steps"], classes=classes, dt_s=env["dt_s"],
            ) + f'<p class="key">{key}</p>',
        ),
        _figure(
            "Where the episodes ended",
            "True distance to the goal at the end, one dot an episode.",
            charts.distance_swarm(
                {
                    name: [(e.final_distance_m, f"{name}, {_in_short(e)}") for e in episodes]
                    for name, episodes in by_method.items()
                },
                classes=classes,
                thresholds_m=[
                    (env[field], f"{100 * env[field]:g} cm") for field in ("strict_tolerance_m", "moderate_tolerance_m") if env.get(field)
                ],
            ),
        ),
    ]  # fmt: skip
    episodes = by_method[planner["name"]]
    times = [ms for e in episodes for ms in e.plan_ms]
    if times:
        marks = [(f"p{p}", percentile(times, p)) for p in (50, 95, 99)]
        period = f"The control period is {1e3 * env['dt_s']:.0f} ms."
        about = f"Observation in, action out: encoding, priming and search, {len(times)} decisions. {period}"
        figures.append(_figure("Time to decide", about, charts.histogram(times, unit="ms a decision", marks=marks, css="m-planner")))
    points = [
        (distance, energy, f"{e.goal_id}, step {k}: {cm(distance)} cm, energy {energy:.3g}")
        for e in episodes
        for k, (distance, energy) in enumerate(zip(e.distances_m, e.energies or (), strict=False))
        if distance is not None and energy is not None
    ]
    if points:
        rank = rank_correlation([(x, y) for x, y, _ in points])
        shown = points[:: max(1, len(points) // 900)]
        about = "What the planner minimises against what counts, one dot a step." + (
            "" if rank is None else f" Rank correlation {rank:.2f}."
        )
        figures.append(_figure("Latent energy and true distance", about, charts.energy_scatter(shown, css="m-planner")))
    return "".join(figures)


def _in_short(episode: EpisodeRecord) -> str:
    return f"{episode.goal_id}: {cm(episode.final_distance_m)} cm after {episode.steps} steps, {episode.outcome}"


def _figure(title: str, about: str, body: str) -> str:
    return f"<figure><h3>{escape(title)}</h3><p>{escape(about)}</p>{body}</figure>"


def _others_title(chosen: Chosen, own: Mapping[int, EpisodeRecord]) -> str:
    shown, rest = len(chosen.others), len(own) - len(chosen.featured)
    if not rest:
        return "No other episodes"
    return (
        "The other episodes" if shown == rest else f"{shown} of the other {rest} episodes: those that went wrong first, and an even sample"
    )


def _episode_table(by_method: Mapping[str, Sequence[EpisodeRecord]], planner: str) -> str:
    others = [name for name in by_method if name != planner]
    head = "".join(f"<th>{escape(name)}<br>cm</th>" for name in others)
    rows = "".join(
        f"<tr><td>{e.index}</td><td>{escape(e.goal_id)}</td><td>{e.seed}</td><td>{cm(e.distances_m[0])}</td><td>{cm(e.final_distance_m)}</td>"
        f'<td>{e.steps}</td><td><span class="badge {e.outcome}">{e.outcome}</span></td>'
        + "".join(f"<td>{cm(by_method[name][k].final_distance_m)}</td>" for name in others) + "</tr>"
        for k, e in enumerate(by_method[planner])
    )  # fmt: skip
    return (
        f"<details><summary>Table of {len(by_method[planner])} goals and all methods</summary>"
        f'<div class="scroll"><table class="dense"><thead><tr><th>episode</th><th>goal</th><th>seed</th><th>start<br>cm</th>'
        f"<th>{escape(planner)}<br>cm</th><th>steps</th><th>outcome</th>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _provenance(results: Mapping[str, Any]) -> str:
    machine, versions = results.get("machine", {}), results["versions"]
    facts = {
        "machine": ", ".join(f"{key} {value}" for key, value in machine.items()),
        "versions": ", ".join(f"{key} {value}" for key, value in versions.items()),
        "seeds": f"base {results['seeds']['base']}; {results['seeds']['rule']}",
        "duration": f"{results.get('wall_s', 0):.0f} s" + (f", {n} episodes resumed" if (n := results.get("resumed_episodes")) else ""),
        **{f"{name}, sha256": value for name, value in results["hashes"].items()},
    }
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    config = escape(json.dumps(results["config"], indent=2))
    return f'<dl class="facts-list">{items}</dl><details><summary>Resolved configuration</summary><pre>{config}</pre></details>'
