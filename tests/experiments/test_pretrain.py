import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from goalward import UserError
from goalward.datasets.spec import Episode, StoreSpec
from goalward.datasets.writer import EpisodeWriter
from goalward.experiments.pretrain import PretrainCommand, run, training_config
from goalward.experiments.probe import ProbeCommand
from goalward.experiments.probe import run as run_probe
from goalward.experiments.train import TrainCommand
from goalward.experiments.train import run as run_train
from goalward.wm.encoders import load_encoder
from goalward.wm.model import load_model
from goalward.wm.pixel_objective import PixelObjectiveConfig
from goalward.wm.pretrain_state import STATE_NAME

SIZE = 32


def make_store(path: Path, *, size: int = SIZE, proprio: tuple[str, ...] = ("ee_x_m", "ee_y_m", "ee_z_m"), seed: int = 0) -> Path:
    """Writes episodes of a soft ball: its row and column in the picture are x and y, its brightness is z."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    spec = StoreSpec(
        env="ball",
        env_id="Ball-v0",
        cameras=("front",),
        image_size_px=size,
        dt_s=0.2,
        action_names=("none",),
        action_low=(0.0,),
        action_high=(0.0,),
        proprio_names=proprio,
    )
    with EpisodeWriter(path, spec) as writer:
        for number in range(24):
            places = np.clip(rng.uniform(0.2, 0.8, 3) + np.cumsum(rng.normal(0, 0.04, (8, 3)), 0), 0.1, 0.9)
            blobs = [np.exp(-((rows - x) ** 2 + (columns - y) ** 2) / 0.02) * (100 + 100 * z) for x, y, z in places]
            pixels = np.repeat(np.array(blobs)[:, None, :, :, None], 3, -1).astype(np.uint8)
            episode = Episode(
                pixels=pixels,
                proprio=places[:, : len(proprio)].astype(np.float32),
                actions=np.zeros((7, 1), np.float32),
                seed=number,
                behaviour="drift",
            )
            writer.append(episode, split=("train", "train", "train", "train", "validation", "test")[number % 6])
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("data") / "ball")


def command(store: Path, out: Path, **options: object) -> PretrainCommand:
    return PretrainCommand(data=(store,), out=out, **({"preset": "debug", "steps": 4, "quiet": True, "threads": 1} | options))  # type: ignore[arg-type]


def train_command(store: Path, folder: Path) -> TrainCommand:
    """Trains a predictor for a moment, on the encoder in the folder, with the model beside it."""
    names = {"data": store, "encoder": str(folder / "encoder"), "out": folder / "model", "cache": folder / "cache"}
    return TrainCommand(env="ball", preset="debug", steps=2, quiet=True, threads=1, **names)  # type: ignore[arg-type]


def test_pretrain_writes_an_encoder_with_its_provenance_and_probe_measures_it(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(store, tmp_path / "encoder", name="ball-small")) == 0
    encoder = load_encoder(tmp_path / "encoder")
    assert (encoder.name, encoder.image_size_px) == ("ball-small", SIZE)
    described = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    provenance = described["provenance"]
    assert provenance["data"][0]["frames"] == 16 * 8
    assert provenance["data"][0]["env"] == "Ball-v0"
    assert provenance["figures"]["steps"] == 4
    assert provenance["figures"]["held_out_latents"]["effective_rank"] >= 1
    assert "SIGReg" in provenance["objective"]
    assert provenance["command"] == "goalward pretrain --data data/ball --preset debug --steps 4 --name ball-small"
    assert str(tmp_path) not in json.dumps(described)
    card = (tmp_path / "encoder" / "MODEL_CARD.md").read_text()
    assert encoder.fingerprint in card
    assert provenance["data"][0]["sha256"][:16] in card
    assert not (tmp_path / "encoder" / STATE_NAME).exists()
    assert capsys.readouterr().out == ""

    options = ProbeCommand(data=store, encoder=str(tmp_path / "encoder"), pixel_side=8, threads=1, json=True, out=tmp_path / "probe.json")
    assert run_probe(options) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "probe.json").read_text()) == report
    assert set(report["methods"]) == {"encoder", "random weights", "pixels 8x8"}
    assert report["samples"] == {"train": 128, "validation": 32, "test": 32}
    assert report["methods"]["pixels 8x8"]["mean_error"] < 0.1
    assert report["methods"]["encoder"]["features"] == report["collapse"]["width"]
    assert run_probe(ProbeCommand(data=store, encoder=str(tmp_path / "encoder"), pixel_side=8, threads=1)) == 0
    assert "effective rank" in capsys.readouterr().out


def test_pixels_may_be_predicted_instead_and_the_decoder_goes_all_the_way_into_the_world_model(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(store, tmp_path / "encoder", objective="pixels", quiet=False)) == 0
    assert "reconstruction" in capsys.readouterr().err
    described = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    assert "pixels" in described["provenance"]["objective"]
    assert described["provenance"]["command"] == "goalward pretrain --data data/ball --objective pixels --preset debug --steps 4"
    files = {file.name for file in (tmp_path / "encoder").iterdir()}
    assert files == {"encoder.json", "encoder.safetensors", "decoder.json", "decoder.safetensors", "MODEL_CARD.md"}

    assert run_train(train_command(store, tmp_path)) == 0
    model = load_model(tmp_path / "model")
    frames = np.random.default_rng(0).integers(0, 256, (2, 1, SIZE, SIZE, 3), dtype=np.uint8)
    z_BND = model.encode(frames)
    assert model.decoder is not None
    assert torch.equal(model.decode(z_BND), model.decoder.decode(model.denormalise(z_BND)))
    context = model.prime(z_BND[:, None].expand(-1, model.context_frames, -1, -1))
    z_BSHND = model.rollout(context, torch.zeros(2, 3, 4, 1))
    assert model.decode(z_BSHND).shape == (2, 3, 4, 1, SIZE, SIZE, 3)
    damaged = tmp_path / "model" / "encoder" / "decoder.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged decoder"):
        load_model(tmp_path / "model")

    # An encoder that is made anew in the folder, without a decoder, does not keep the old one's.
    assert run(command(store, tmp_path / "encoder")) == 0
    assert not (tmp_path / "encoder" / "decoder.json").exists()


def test_a_model_that_never_predicted_pixels_cannot_decode(store: Path, tmp_path: Path) -> None:
    assert run(command(store, tmp_path / "encoder", steps=1)) == 0
    assert run_train(train_command(store, tmp_path)) == 0
    model = load_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"no decoder.*--objective pixels"):
        model.decode(torch.zeros(1, 4, model.description.dim))


def test_progress_goes_to_standard_error_with_loss_rank_and_rate(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command(store, tmp_path, quiet=False, steps=20)) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in ("100%", "of persistence", "SIGReg", "frames/s", "rank", "goalward probe"):
        assert part in captured.err


def test_an_interrupted_run_says_how_to_continue_and_continues(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from goalward.experiments import pretrain as module

    whole = run(command(store, tmp_path / "whole"))
    shown = module._Bar.update

    def interrupt(bar: object, progress: object) -> None:
        shown(bar, progress)  # type: ignore[arg-type]
        if progress.step == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(
        module, "training_config", lambda config, image_size_px: _saving(training_config(config, image_size_px=image_size_px))
    )
    monkeypatch.setattr(module._Bar, "update", interrupt)
    assert run(command(store, tmp_path / "cut", quiet=False)) == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(module._Bar, "update", shown)
    assert run(command(store, tmp_path / "cut", resume=True)) == whole == 0
    assert load_encoder(tmp_path / "cut").fingerprint == load_encoder(tmp_path / "whole").fingerprint


def _saving(config: object) -> object:
    return replace(config, save_every_s=0.0)  # type: ignore[type-var]


def test_several_stores_are_mixed_by_weight_and_must_fit(store: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", seed=1)
    both = PretrainCommand(
        data=(store, other), weights=(3.0, 1.0), out=tmp_path / "out", preset="debug", steps=2, quiet=True, max_frames=100
    )
    assert run(both) == 0
    sources = json.loads((tmp_path / "out" / "encoder.json").read_text())["provenance"]["data"]
    assert [source["weight"] for source in sources] == [3.0, 1.0]
    assert [source["frames"] for source in sources] == [72, 24]
    large = make_store(tmp_path / "large", size=64)
    with pytest.raises(UserError, match=r"64, 64.*\[T\+1, V, 32, 32, 3\]"):
        run(PretrainCommand(data=(store, large), out=tmp_path / "out", preset="debug", steps=2, quiet=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": ()}, "data is empty"),
        ({"weights": (1.0, 2.0)}, "weights has 2 entries for 1"),
        ({"minutes": 1.0, "steps": 5}, "minutes and steps"),
        ({"max_frames": 0}, "max_frames = 0"),
        ({"threads": -1}, "threads = -1"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        PretrainCommand(**({"data": (Path("x"),)} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": ()}, "target"),
        ({"max_samples": 1}, "max_samples = 1"),
        ({"pixel_side": 0}, "pixel_side = 0"),
        ({"threads": -1}, "threads"),
    ],
)
def test_bad_probe_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ProbeCommand(data=Path("x"), **options)  # type: ignore[arg-type]


def test_options_override_the_preset(store: Path) -> None:
    assert training_config(command(store, Path("x"), steps=None), image_size_px=64).steps == 60
    timed = training_config(command(store, Path("x"), steps=None, minutes=2.0, batch_clips=5, seed=3), image_size_px=64)
    assert (timed.steps, timed.minutes, timed.batch_clips, timed.seed) == (None, 2.0, 5, 3)
    full = training_config(PretrainCommand(data=(store,)), image_size_px=128)
    assert full.encoder.image_size_px == 128
    control = training_config(PretrainCommand(data=(store,), objective="pixels"), image_size_px=128)
    assert isinstance(control.objective, PixelObjectiveConfig)
    assert replace(control, objective=full.objective) == full  # nothing but the objective differs


def test_probe_refuses_data_that_does_not_fit(store: Path, tmp_path: Path) -> None:
    run(command(store, tmp_path / "encoder", steps=1))
    encoder = str(tmp_path / "encoder")
    with pytest.raises(UserError, match=r"target: wrist_m not among the data's proprioception \(ee_x_m, ee_y_m, ee_z_m\)"):
        run_probe(ProbeCommand(data=store, encoder=encoder, target=("wrist_m",), threads=1))
    with pytest.raises(UserError, match=r"frames \[64, 64, 3\]"):
        run_probe(ProbeCommand(data=make_store(tmp_path / "large", size=64), encoder=encoder, threads=1))
    with pytest.raises(UserError, match="neither a known name nor a folder"):
        run_probe(ProbeCommand(data=store, encoder=str(tmp_path / "none"), threads=1))


def test_a_vision_transformer_is_pretrained_exported_and_trained_upon(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(store, tmp_path / "encoder", architecture="vit")) == 0
    encoder = load_encoder(tmp_path / "encoder")
    assert (type(encoder).__name__, encoder.image_size_px, encoder.tokens_per_view, encoder.dim) == ("PretrainedEncoder", SIZE, 4, 48)
    assert encoder.licence == "Apache-2.0"
    described = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    assert described["provenance"]["command"] == "goalward pretrain --data data/ball --architecture vit --preset debug --steps 4"
    assert described["provenance"]["figures"]["steps"] == 4
    assert str(tmp_path) not in json.dumps(described)
    assert encoder.fingerprint in (tmp_path / "encoder" / "README.md").read_text()
    assert not (tmp_path / "encoder" / STATE_NAME).exists()
    assert run_train(train_command(store, tmp_path)) == 0
    assert load_model(tmp_path / "model").encoder.fingerprint == encoder.fingerprint
    options = ProbeCommand(data=store, encoder=str(tmp_path / "encoder"), pixel_side=8, threads=1, json=True)
    capsys.readouterr()
    assert run_probe(options) == 0
    assert set(json.loads(capsys.readouterr().out)["methods"]) == {"encoder", "pixels 8x8"}


def test_pixels_are_not_predicted_by_a_vision_transformer(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its decoder belongs to the small encoder"):
        run(command(store, tmp_path / "encoder", architecture="vit", objective="pixels"))
