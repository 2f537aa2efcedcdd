import re
from pathlib import Path

import pytest
from tiny_runs import CPU

from dnnlib.dataclass_values import ConfigError, override
from training.checkpoint.state_file import STATE_LATEST, find_state, restore, state_values, write_state
from training.config import DatasetSpec, RunConfig
from training.run.folder import OPTIONS_FILE, differences, few, new_run, newest_matching_run, read_options
from training.state import TrainState


@pytest.fixture
def config(tiny_config: RunConfig) -> RunConfig:
    return tiny_config.changed(data={"path": "/somewhere/flowers.zip"})


def saved_run(outdir: Path, config: RunConfig, content_hash: str = "") -> Path:
    """A new run with a saved state."""
    run_dir = new_run(outdir, config)
    write_state(run_dir, state_values(TrainState(config, DatasetSpec(16, 16, 3), CPU), content_hash))
    return run_dir


@pytest.fixture
def run_dir(config: RunConfig, tmp_path: Path) -> Path:
    return saved_run(tmp_path, config)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("caf\udce9\n.zip", "caf%E9%0A"),
        ("a\u2028b", "a\\u2028b"),
        ("ab" + "ü" * 120 + ".zip", "ab" + "ü" * 39),
        ("ü" * 120, "ü" * 40),
    ],
)
def test_any_name_of_a_data_set_gives_a_run_folder(config, tiny_spec, tmp_path, name: str, stem: str) -> None:
    ours = config.changed(data={"path": f"/somewhere/{name}"})
    run_dir = saved_run(tmp_path, ours)
    assert run_dir.name.startswith(f"00000-{stem}-") and run_dir.name.isprintable()
    assert newest_matching_run(tmp_path, ours, tiny_spec) == (run_dir, ours)


def test_resumes_where_only_length_place_and_speed_changed(config, run_dir, tiny_spec) -> None:
    ours = config.changed(
        schedule={"kimg": 9.0, "keep": 3},
        data={"path": "/elsewhere/flowers.zip", "workers": 4},
        performance={"compile": "1", "cuda_graphs": True, "recomputed_stages": 1},
    )
    assert newest_matching_run(run_dir.parent, ours, tiny_spec) == (run_dir, ours)


def test_forced_settings_of_the_optimizers_are_used(config: RunConfig, run_dir: Path, tiny_spec: DatasetSpec) -> None:
    """Optimizer states carry the settings that they were saved with; a diverged run is resumed with a smaller rate."""
    forced = {"eps": 1e-6, "beta1": 0.3, "g_lr": 0.001, "d_lr": 0.001}
    state = TrainState(config.changed(optimizer=forced), tiny_spec, CPU)
    restore(state, find_state(run_dir), run_dir)  # type: ignore[arg-type]
    for group in (*state.g.optimizer.param_groups, *state.d.optimizer.param_groups):
        assert group["eps"] == 1e-6 and group["betas"][0] == pytest.approx(0.3, abs=0.2)
        assert group["lr"] == pytest.approx(0.001 * 2 / 3)


@pytest.mark.parametrize(
    ("group", "values", "named"),
    [
        ("data", {"path": "/somewhere/cats.zip"}, "cats.zip here"),
        ("loss", {"r1_gamma": 9.0}, "loss.r1_gamma"),
        ("schedule", {"batch_gpu": 4}, "schedule.batch_gpu"),
        ("performance", {"precision": "bf16"}, "performance.precision (fp32 there, bf16 here)"),
    ],
)
def test_other_settings_are_named(config, run_dir, tiny_spec, capsys, group, values, named) -> None:
    ours = config.changed(**{group: values})
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        newest_matching_run(run_dir.parent, ours, tiny_spec)
    assert "--force" in str(caught.value) and "--outdir" in str(caught.value)
    assert newest_matching_run(run_dir.parent, ours, tiny_spec, force=True) == (run_dir, ours)
    assert named in capsys.readouterr().out
    saved_run(run_dir.parent, ours)
    assert newest_matching_run(run_dir.parent, config, tiny_spec) == (run_dir, config)  # an older one may match


def test_a_fine_tuned_run_keeps_its_settings_on_resume(config, tiny_spec, tmp_path, capsys) -> None:
    tuned = config.changed(augment={"speed_kimg": 100.0}, ema={"rampup": None}, generator={"linformer_lr_mult": 3.0})
    run_dir = saved_run(tmp_path, tuned)
    assert newest_matching_run(tmp_path, config, tiny_spec) == (run_dir, tuned)
    kept = "Kept from the start of the run: "
    kept = f"{kept}augment.speed_kimg=100.0\n{kept}ema.rampup=None\n{kept}generator.linformer_lr_mult=3.0\n"
    assert capsys.readouterr().out == kept


def test_folders_of_other_programs_and_damaged_ones_are_skipped(config, run_dir, tiny_spec) -> None:
    for number, text in enumerate(['{"num_gpus": 1, "loss_kwargs": {}}', '{"data": 3}', "{", "[]"], start=1):
        folder = run_dir.parent / f"{number:05d}-other"
        folder.mkdir()
        (folder / OPTIONS_FILE).write_text(text, encoding="utf-8")
        assert read_options(folder) is None
    assert newest_matching_run(run_dir.parent, config, tiny_spec) == (run_dir, config)
    (run_dir / STATE_LATEST).unlink()
    assert newest_matching_run(run_dir.parent, config, tiny_spec) is None


@pytest.mark.parametrize(
    ("group", "name"), [("generator", "w_dim"), ("discriminator", "channel_base"), ("discriminator", "freeze_layers")]
)
def test_force_needs_networks_that_fit(config, run_dir: Path, tiny_spec: DatasetSpec, group: str, name: str) -> None:
    other = config.changed(**{group: {name: getattr(getattr(config, group), name) * 2 or 1}})
    for force in (False, True):
        with pytest.raises(ConfigError, match=name) as raised:
            newest_matching_run(run_dir.parent, other, tiny_spec, force=force)
        assert "(--force)" not in str(raised.value)
    with pytest.raises(ConfigError, match="--force"):
        newest_matching_run(run_dir.parent, config.changed(loss={"r1_gamma": 3.0}), tiny_spec)


@pytest.mark.parametrize(
    "text", ["null", "", "[" * 100_000, '{"schedule": {"kimg": 1e400}}', f'{{"schedule": {{"seed": {10**400}}}}}']
)
def test_damaged_settings_are_taken_from_the_state(config, run_dir, tiny_spec, capsys, text) -> None:
    (run_dir / OPTIONS_FILE).write_text(text, encoding="utf-8")
    assert newest_matching_run(run_dir.parent, config, tiny_spec) == (run_dir, config)
    assert f"{OPTIONS_FILE} cannot be used" in capsys.readouterr().out


def test_a_replaced_data_set_is_noticed(config: RunConfig, tiny_spec: DatasetSpec, tmp_path: Path) -> None:
    """By the format of its images, and by their content."""
    run_dir = saved_run(tmp_path, config, content_hash="a")
    assert newest_matching_run(tmp_path, config, tiny_spec, "a") == (run_dir, config)
    with pytest.raises(ConfigError, match=r"label_dim \(0 there, 2 here\)"):
        newest_matching_run(tmp_path, config, DatasetSpec(16, 16, 3, label_dim=2), "a")
    with pytest.raises(ConfigError, match="the content of the data set"):
        newest_matching_run(tmp_path, config, tiny_spec, "b")
    assert newest_matching_run(tmp_path, config, tiny_spec, "b", force=True) == (run_dir, config)


def test_few_differences_are_named() -> None:
    many = [f"loss.x{i} (1 there, 2 here)" for i in range(9)]
    assert few(many) == "; ".join(many[:5]) + "; and 4 more"
    assert few([*many, "preset.name (demo there, auto here)"]) == "preset.name (demo there, auto here); and 9 more"
    assert few(many[:1]) == many[0]


def test_a_run_of_another_kind_is_a_difference_not_an_error(tiny_config: RunConfig) -> None:
    for group, kind in (("generator", "hybrid"), ("discriminator", "vit"), ("loss", "relativistic")):
        other = override(tiny_config, f"{group}.kind", kind)
        for theirs, ours in ((tiny_config, other), (other, tiny_config)):
            assert any(text.startswith(f"{group}.kind") for text in differences(theirs, ours))


def test_a_state_without_the_newer_fields_of_its_images_is_resumed(tmp_path, tiny_config, tiny_spec) -> None:
    run_dir = new_run(tmp_path, tiny_config)
    values = state_values(TrainState(tiny_config, tiny_spec, CPU))
    del values["dataset"]["labels_are_vectors"], values["dataset"]["class_names"]
    write_state(run_dir, values)
    found = newest_matching_run(tmp_path, tiny_config, tiny_spec)
    assert found is not None and found[0] == run_dir
