"""The page holds everything it shows, needs no network, and puts what matters first."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from goalward.experiments import plan_eval, report_cards
from goalward.experiments.evaluation import Method
from goalward.experiments.media import VideoUnavailable
from goalward.experiments.report import Chosen, build_page, choose_episodes
from goalward.experiments.results import EpisodeRecord

VOID = {"meta", "link", "img", "br", "line", "circle", "rect", "path", "input"}
RESOURCES = {"src", "data-src", "poster", "href", "srcset", "action", "xlink:href", "data"}


class Page(HTMLParser):
    """Collects resources and checks that elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.resources: list[str] = []
        self.tags: dict[str, int] = {}
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.resources += [value or "" for name, value in attrs if name in RESOURCES]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def record(
    index: int, *, strict: bool = True, moderate: bool = True, steps: int = 3, final: float | None = 0.02, failure: str | None = None
) -> EpisodeRecord:
    return EpisodeRecord(
        method="cem", index=index, goal_id=f"goal-{index}", seed=index, distances_m=(*([0.3] * steps), final),
        energies=(*([1.0] * steps), 0.1),
        actions=((0.0, 0.0),) * steps, plan_ms=(50.0,) * steps, strict=strict and failure is None, moderate=moderate and failure is None,
        steps=steps, failure=failure,
    )  # fmt: skip


@pytest.fixture
def page(point_env: Any, make_planner: Any, eval_config: Any, tmp_path: Path) -> str:
    env = point_env(fail_at_goal=1)
    plan_eval.evaluate_methods(
        env, make_planner(env), config=eval_config(), hashes={"model": "ab" * 32, "goals": "cd" * 32}, folder=tmp_path
    )
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert parsed.resources
    assert all(resource.startswith("data:") for resource in parsed.resources)
    outside = re.sub(r"data:[a-z]+/[a-z0-9]+;base64,[A-Za-z0-9+/=]+", "", page)
    for forbidden in ("http:", "https:", "//cdn", "@import", "url(", "<iframe", "fetch(", "XMLHttpRequest", "import("):
        assert forbidden not in outside, forbidden
    assert "{{" not in outside
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_the_page_says_what_happened(page: str) -> None:
    assert "<em>60\u202f%</em>" in page
    for text in ("Test/Point-v0", "oracle", "random", "hold", "goal-3", "95 % Wilson interval", "ab" * 32, "Resolved configuration"):
        assert text in page
    assert "every replay ended where the evaluation did" in page


def test_failures_are_labelled_with_their_reason_and_escaped(page: str) -> None:
    assert '<span class="badge failed">failed</span>' in page
    assert "the simulation &lt;b&gt;diverged&lt;/b&gt;" in page
    assert "<b>diverged" not in page


def test_best_median_and_worst_come_first(page: str) -> None:
    places = [page.index(f"<h3>{title}") for title in ("Best", "Median", "Worst")]
    assert places == sorted(places)
    assert re.search(r"<h3>Worst: goal-1</h3>", page), "the failed episode is the worst"
    assert places[-1] < page.index("<h2>The other episodes</h2>")


def test_every_card_has_pictures_a_video_and_curves(page: str) -> None:
    cards = page.split('<article class="card"')[1:]
    assert len(cards) == 5
    for text in cards:
        part = text.split("</article>")[0]
        assert part.count("data:video/mp4") == 1
        assert part.count("<figcaption>") == 3
        assert part.count("<img ") == 6, "start, goal and final, two cameras each"
        assert part.count('class="curve"') == 2


def test_the_page_works_in_light_and_dark_and_on_small_screens(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert "max-width: 900px" in page


def test_without_ffmpeg_there_are_pictures_and_a_reason(
    point_env: Any, make_planner: Any, eval_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> str:
        raise VideoUnavailable("no video could be encoded: no ffmpeg")

    monkeypatch.setattr(report_cards, "mp4_uri", unavailable)
    env = point_env()
    plan_eval.evaluate_methods(env, make_planner(env), config=eval_config(episodes=3), hashes={}, folder=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no video could be encoded: no ffmpeg" in page
    assert "data:video" not in page
    assert page.count("last frame of episode") == 3
    assert 'class="hero alone"' in page


@pytest.mark.parametrize("episodes", [1, 2, 3])
def test_few_episodes_and_no_references_make_a_page_too(
    point_env: Any, make_planner: Any, eval_config: Any, tmp_path: Path, episodes: int
) -> None:
    env = point_env()
    plan_eval.evaluate_methods(env, make_planner(env), config=eval_config(episodes=episodes, references=False), hashes={}, folder=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert Page(page).open == []
    assert page.count('<article class="card"') == episodes
    assert "No other episodes" in page


def test_a_method_without_a_model_has_no_energy_curves(point_env: Any, eval_config: Any, tmp_path: Path) -> None:
    env = point_env()
    method = Method(name="mine", role="planner", begin=lambda _: lambda _: env.oracle_action())
    plan_eval.evaluate_methods(env, method, config=eval_config(episodes=3), hashes={}, folder=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "latent energy" not in page
    assert "Time to decide" not in page


def test_a_page_without_media_still_has_every_figure(point_env: Any, make_planner: Any, eval_config: Any, tmp_path: Path) -> None:
    env = point_env()
    plan_eval.evaluate_methods(env, make_planner(env), config=eval_config(), hashes={}, folder=tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    del results["env"]["strict_tolerance_m"], results["env"]["moderate_tolerance_m"]  # an environment that states none
    page = build_page(results, chosen=Chosen(best=0, median=1, worst=3, others=(2,)), media={})
    assert Page(page).open == []
    assert page.count('class="chart"') == 5


def test_strict_and_quick_is_best_failed_is_worst() -> None:
    episodes = [
        record(0, strict=False, final=0.04),
        record(1, steps=9),
        record(2, steps=4),
        record(3, failure="diverged"),
        record(4, strict=False, moderate=False, final=0.3),
    ]
    chosen = choose_episodes(episodes, max_cards=50)
    assert (chosen.best, chosen.median, chosen.worst) == (2, 0, 3)
    assert chosen.others == (1, 4)


def test_many_episodes_show_what_went_wrong_and_an_even_sample() -> None:
    episodes = [
        record(k, strict=k % 20 != 0, moderate=k % 20 != 0, steps=3 + k % 7, final=0.2 if k % 20 == 0 else 0.01) for k in range(200)
    ]
    chosen = choose_episodes(episodes, max_cards=40)
    shown = {*chosen.featured, *chosen.others}
    assert 30 <= len(shown) <= 40
    assert {k for k in range(200) if k % 20 == 0} <= shown
    assert len(set(chosen.others)) == len(chosen.others)


def test_all_wrong_is_bounded_too() -> None:
    chosen = choose_episodes([record(k, strict=False, moderate=False, final=0.1 + k / 1000) for k in range(100)], max_cards=10)
    assert len({*chosen.featured, *chosen.others}) <= 10


def test_one_episode_is_best_median_and_worst() -> None:
    chosen = choose_episodes([record(0)], max_cards=3)
    assert chosen.featured == (0,)
    assert chosen.others == ()
