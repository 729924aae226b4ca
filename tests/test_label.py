"""The stage label, run as its users run it, on small tables of sounds."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earshot.labels.labeler import load_labeler
from earshot.pipeline.settings import settings
from stages.label import STAGE, main

PARAMS = Path(__file__).parent.parent / "params.yaml"
CLIPS, MOMENTS, SHARD_CLIPS = 60, 4, 25


def sounds_table(dimensions: int = 502, clips: int = CLIPS) -> dict[str, np.ndarray]:
    """Columns of a table of sounds: clips of four kinds of sound, two clips a group, a tenth of the moments silent."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(rng.integers(4, size=clips), MOMENTS)
    rows = len(kinds)
    silent = rng.random(rows) < 0.1
    descriptors = 2 * rng.standard_normal((4, dimensions))[kinds] + rng.standard_normal((rows, dimensions)) + 5
    descriptors[silent] = 0
    clip = np.repeat(np.arange(clips), MOMENTS)
    group = clip // 2
    return {
        "clip_id": np.array([f"clip{c:03d}" for c in clip]),
        "moment": np.tile(np.arange(MOMENTS), clips).astype(np.int16),
        "group": np.array([f"video{g}" for g in group]),
        "split": np.array(["train", "train", "train", "train", "val", "test"])[group % 6],
        "silent": silent,
        "descriptor": descriptors.astype(np.float32),
    }


def write_sounds(root: Path, columns: dict[str, np.ndarray]) -> None:
    folder = root / "data" / "sounds"
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(columns["moment"]), SHARD_CLIPS * MOMENTS)):
        part = {name: values[start : start + SHARD_CLIPS * MOMENTS] for name, values in columns.items()}
        descriptors = part.pop("descriptor")
        table = pa.table(part).append_column(
            "descriptor", pa.FixedSizeListArray.from_arrays(descriptors.ravel(), descriptors.shape[1])
        )
        pq.write_table(table, folder / f"{number:05d}.parquet", compression="none", row_group_size=100)


def write_empty_shard(root: Path) -> None:
    """A last shard without rows, as where every clip of a shard was refused."""
    paths = sorted((root / "data" / "sounds").glob("*.parquet"))
    pq.write_table(pq.read_schema(paths[0]).empty_table(), paths[0].with_name(f"{len(paths):05d}.parquet"))


def run_label(root: Path, *overrides: str) -> None:
    (root / "data" / "scenes").mkdir(exist_ok=True)  # an input of the stage, read for textons only
    arguments = ["--params", str(PARAMS), "--root", str(root), "--set", "clusters=4", "--set", "label.restarts=3"]
    STAGE.run(main, arguments + [a for override in overrides for a in ("--set", override)])


def read_labels(root: Path) -> dict[str, np.ndarray]:
    table = pa.concat_tables([pq.read_table(path) for path in sorted((root / "data" / "labels").glob("*.parquet"))])
    return {name: table[name].to_numpy() for name in table.column_names}


def read_metrics(root: Path) -> dict:
    return json.loads((root / "metrics" / "label.json").read_text())


@pytest.fixture(autouse=True)
def one_processor(monkeypatch):
    """Tables this small are labelled fastest in one process and one thread."""
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    monkeypatch.setenv("EARSHOT_THREADS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_labels_are_the_rows_of_the_sounds_in_equally_numbered_shards(tmp_path, capsys):
    columns = sounds_table()
    write_sounds(tmp_path, columns)
    write_empty_shard(tmp_path)
    run_label(tmp_path)
    assert len(list((tmp_path / "data" / "labels").iterdir())) == 4
    for path in (tmp_path / "data" / "sounds").glob("*.parquet"):
        labels = pq.read_table(tmp_path / "data" / "labels" / path.name)
        sounds = pq.read_table(path)
        for name in ("clip_id", "moment", "group", "split"):
            assert labels[name].to_pylist() == sounds[name].to_pylist()
    labels = read_labels(tmp_path)
    np.testing.assert_array_equal(labels["label"] == -1, columns["silent"])
    assert not labels["kept"][columns["silent"]].any()
    assert set(labels["label"]) == {-1, 0, 1, 2, 3}
    assert "240 moments" in capsys.readouterr().out


def test_metrics_count_moments_and_shares_add_up_to_one(tmp_path):
    columns = sounds_table()
    write_sounds(tmp_path, columns)
    run_label(tmp_path)
    metrics, labels = read_metrics(tmp_path), read_labels(tmp_path)
    trained_on = (labels["split"] == "train") & labels["kept"]
    heard = (columns["split"] == "train") & ~columns["silent"]
    assert metrics["moments"] == 240
    assert metrics["moments_trained_on"] == trained_on.sum() == (heard.sum() + 1) // 2
    assert sum(metrics[f"share_{p}"] for p in ("moments", "correlation", "modulation", "energy")) == pytest.approx(1)
    shares = np.unique(labels["label"][trained_on], return_counts=True)[1] / trained_on.sum()
    assert metrics["label_entropy"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-6)


def test_only_training_sounds_shape_the_labeler(tmp_path):
    columns = sounds_table()
    write_sounds(tmp_path / "a", columns)
    write_sounds(tmp_path / "c", columns)
    other = dict(columns)
    training = columns["split"] == "train"
    other["descriptor"] = np.where(training[:, None], columns["descriptor"], 3 * columns["descriptor"][::-1])
    other["descriptor"][columns["silent"] & training] = 7
    write_sounds(tmp_path / "b", other)
    columns["descriptor"] = columns["descriptor"] + training[:, None].astype(np.float32)
    write_sounds(tmp_path / "c", columns)
    for name in "abc":
        run_label(tmp_path / name)
    a, b, c = (load_labeler(tmp_path / name / "models" / "labeler") for name in "abc")
    np.testing.assert_array_equal(a.model.centroids, b.model.centroids)
    np.testing.assert_array_equal(a.scaling.factor, b.scaling.factor)
    assert not np.array_equal(a.scaling.centre, c.scaling.centre)


def test_the_same_parameters_give_the_same_bytes_in_memory_and_streamed(tmp_path):
    outputs = []
    for name, overrides in (("a", []), ("b", []), ("streamed", ["label.memory_megabytes=1"])):
        root = tmp_path / name
        write_sounds(root, sounds_table(clips=400))  # 3 MB
        run_label(root, *overrides)
        files = sorted(p for folder in ("data/labels", "models/labeler", "metrics") for p in (root / folder).iterdir())
        outputs.append({path.name: path.read_bytes() for path in files})
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_control_deals_labels_of_other_groups_and_changes_nothing_else(tmp_path):
    for name, control in (("own", "none"), ("wrong", "wrong-sound")):
        write_sounds(tmp_path / name, sounds_table())
        run_label(tmp_path / name, f"label.control={control}")
    own, wrong = read_labels(tmp_path / "own"), read_labels(tmp_path / "wrong")
    np.testing.assert_array_equal(own["wrong_sound_label"], wrong["label"])
    np.testing.assert_array_equal(own["wrong_sound_kept"], wrong["kept"])
    np.testing.assert_array_equal(own["wrong_sound_label"], wrong["wrong_sound_label"])
    for split in ("train", "val", "test"):
        rows = own["split"] == split
        pairs = [sorted(zip(t["label"][rows], t["kept"][rows], strict=True)) for t in (own, wrong)]
        assert pairs[0] == pairs[1]
    assert (own["label"] != wrong["label"]).mean() > 0.5
    own_metrics, wrong_metrics = read_metrics(tmp_path / "own"), read_metrics(tmp_path / "wrong")
    assert own_metrics == wrong_metrics


def test_a_run_that_is_stopped_goes_on_to_the_same_bytes_without_fitting_again(tmp_path, monkeypatch):
    for name in ("whole", "stopped"):
        write_sounds(tmp_path / name, sounds_table())
    run_label(tmp_path / "whole")

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stages.label.write_labels", stop)
        with pytest.raises(SystemExit):
            run_label(tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "data" / "labels").exists()
    monkeypatch.setattr("stages.label.fit_labeler", stop)
    monkeypatch.setattr("stages.label.assign_labels", stop)
    run_label(tmp_path / "stopped")
    for output in ("data/labels/00000.parquet", "data/labels/00002.parquet", "metrics/label.json"):
        assert (tmp_path / "whole" / output).read_bytes() == (tmp_path / "stopped" / output).read_bytes()


def test_another_descriptor_has_no_shares(tmp_path):
    write_sounds(tmp_path, sounds_table(dimensions=32))
    run_label(tmp_path, "descriptor=spectrum", "label.distance_filter=false")
    metrics = read_metrics(tmp_path)
    assert list(metrics) == ["moments", "moments_trained_on", "label_entropy"]
    assert metrics["moments_trained_on"] == ((sounds_table()["split"] == "train") & ~sounds_table()["silent"]).sum()


def silence(columns):
    columns["silent"][:] = True


def one_training_group(columns):
    columns["group"][columns["split"] == "train"] = "video0"


def not_finite(columns):
    columns["descriptor"][3, 0] = np.inf


def no_group(columns):
    del columns["group"]


@pytest.mark.parametrize(
    ("fault", "overrides", "message"),
    [
        (silence, [], "160 training moments, 160 of them silent; too few for 4 clusters"),
        (lambda columns: None, ["clusters=500"], "too few for 500 clusters: give more clips or lower clusters"),
        (one_training_group, ["label.control=wrong-sound"], "the training split has one group"),
        (not_finite, [], "00000.parquet: a descriptor holds values that are not finite"),
        (no_group, [], "00000.parquet: has no column group"),
        (lambda columns: None, ["descriptor=mfcc"], "descriptors of 502 dimensions, wanted the 3100 of mfcc"),
    ],
)
@pytest.mark.filterwarnings("ignore:split train")
def test_a_table_that_cannot_be_labelled_is_refused_in_one_line(tmp_path, capsys, fault, overrides, message):
    columns = sounds_table()
    fault(columns)
    write_sounds(tmp_path, columns)
    with pytest.raises(SystemExit) as refusal:
        run_label(tmp_path, *overrides)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (tmp_path / "data" / "labels").exists()
