"""The stage label from its command line, on small tables of sounds."""

import json
from pathlib import Path

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import PARAMS
from descriptions import description
from labeled_scenes import striped_frame

from earshot.labels.labeler import load_labeler
from earshot.labels.textons import load_textons
from earshot.pipeline.settings import settings
from earshot.pipeline.shards import map_shards
from earshot.scenes.writing import Scene, write_scenes
from earshot.training.label_prediction import kind_of_labels
from stages.label import STAGE, main

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


def write_description(root: Path, descriptor: str) -> None:
    """models/descriptor as the stage describe writes it."""
    description(descriptor).save(root / "models" / "descriptor", [])


def write_sounds(root: Path, columns: dict[str, np.ndarray], descriptor: str = "texture") -> None:
    write_description(root, descriptor)
    folder = root / "data" / "sounds"
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(columns["moment"]), SHARD_CLIPS * MOMENTS)):
        part = {name: values[start : start + SHARD_CLIPS * MOMENTS] for name, values in columns.items()}
        descriptors = part.pop("descriptor")
        table = pa.table(part).append_column(
            "descriptor", pa.FixedSizeListArray.from_arrays(descriptors.ravel(), descriptors.shape[1])
        )
        pq.write_table(table, folder / f"{number:05d}.parquet", compression="none", row_group_size=100)


def looks(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Which of three kinds of stripes each frame has, independently of the sound, int64 (moments,)."""
    return np.unique(columns["clip_id"], return_inverse=True)[1] % 3


def write_frames(root: Path, columns: dict[str, np.ndarray], looks: np.ndarray) -> None:
    """The table of scenes of a table of sounds: a frame of stripes a moment."""
    rng = np.random.default_rng(0)
    frames = [striped_frame(look, rng, width=72) for look in looks]
    scenes = [
        Scene(
            clip_id=str(columns["clip_id"][row]),
            group=str(columns["group"][row]),
            duration=8.0,
            frames=frames[row : row + MOMENTS],
            times=[0.0] * MOMENTS,
            sound=b"not read by label",
            audio_rate=20000,
            audio_channels=1,
        )
        for row in range(0, len(looks), MOMENTS)
    ]
    for number, start in enumerate(range(0, len(scenes), SHARD_CLIPS)):
        write_scenes(root / "data" / "scenes" / f"{number:05d}.parquet", scenes[start : start + SHARD_CLIPS])


def write_empty_shard(root: Path) -> None:
    """Add a last shard without rows, as if all of its clips were refused."""
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
    """Tables this small are labeled fastest in one process and one thread."""
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
    assert len(list((tmp_path / "data" / "labels").glob("*.parquet"))) == 4
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
    audible = (columns["split"] == "train") & ~columns["silent"]
    assert metrics["moments"] == 240
    assert metrics["moments_trained_on"] == trained_on.sum() == (audible.sum() + 1) // 2
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
    assert not np.array_equal(a.scaling.center, c.scaling.center)


def test_the_same_parameters_give_the_same_bytes_in_memory_and_streamed(tmp_path):
    outputs = []
    for name, overrides in (("a", []), ("b", []), ("streamed", ["label.memory_megabytes=1"])):
        root = tmp_path / name
        write_sounds(root, sounds_table(clips=400))  # 3 MB
        run_label(root, *overrides)
        files = sorted(p for folder in ("data/labels", "models/labeler", "metrics") for p in (root / folder).iterdir())
        outputs.append({path.name: path.read_bytes() for path in files})
    assert outputs[0] == outputs[1] == outputs[2]


def test_the_control_permutes_labels_between_groups_and_changes_only_them(tmp_path):
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
    monkeypatch.setattr("earshot.labels.labeler.fit_labeler", stop)
    monkeypatch.setattr("earshot.labels.table.assign_labels", stop)
    run_label(tmp_path / "stopped")
    for output in ("data/labels/00000.parquet", "data/labels/00002.parquet", "metrics/label.json"):
        assert (tmp_path / "whole" / output).read_bytes() == (tmp_path / "stopped" / output).read_bytes()


def test_another_descriptor_has_no_shares(tmp_path):
    write_sounds(tmp_path, sounds_table(dimensions=32), "spectrum")
    run_label(tmp_path, "label.distance_filter=false")
    metrics = read_metrics(tmp_path)
    assert set(metrics) == {"moments", "moments_trained_on", "label_entropy"}
    assert metrics["moments_trained_on"] == ((sounds_table()["split"] == "train") & ~sounds_table()["silent"]).sum()


def test_a_binary_code_has_a_bit_a_component_and_no_distance_leaves_a_moment_out(tmp_path, capsys):
    columns = sounds_table()
    write_sounds(tmp_path, columns)
    run_label(tmp_path, "label.model=binary", "label.components=6", "label.threshold=median")
    labels, metrics = read_labels(tmp_path), read_metrics(tmp_path)
    audible = ~columns["silent"]
    assert labels["label"].dtype == labels["wrong_sound_label"].dtype == np.int64
    assert (labels["label"][~audible] == -1).all() and np.isnan(labels["distance"]).all()
    assert labels["label"][audible].min() >= 0 and 8 < labels["label"].max() < 2**6
    np.testing.assert_array_equal(labels["kept"], audible)
    assert metrics["moments_trained_on"] == (audible & (columns["split"] == "train")).sum()
    assert metrics["label_entropy"] == pytest.approx(1, abs=1e-3)
    assert "a label is a code of 6 bits of texture" in capsys.readouterr().out
    assert load_labeler(tmp_path / "models" / "labeler").kind == "bits"


TEXTONS = ("label.model=textons", "label.textons=16", "clusters=3")


def test_textons_label_the_frames_of_moments_that_are_not_silent(tmp_path, capsys):
    columns = sounds_table(clips=30)
    write_sounds(tmp_path, columns)
    write_frames(tmp_path, columns, looks(columns))
    run_label(tmp_path, *TEXTONS, "label.restarts=5")
    labels, audible = read_labels(tmp_path), ~columns["silent"]
    assert (labels["label"][~audible] == -1).all()
    pairs = set(zip(looks(columns)[audible], labels["label"][audible], strict=True))
    assert len(pairs) == len(dict(pairs)) == len(set(labels["label"][audible])) == 3
    metrics = read_metrics(tmp_path)
    assert set(metrics) == {"moments", "moments_trained_on", "label_entropy"}
    assert metrics["moments_trained_on"] == ((audible & (columns["split"] == "train")).sum() + 1) // 2
    assert "a label is one of 3 clusters of textons" in capsys.readouterr().out


def test_tasks_about_frames_hold_no_name_of_a_shard(tmp_path, monkeypatch):
    columns, tasks = sounds_table(clips=30), []
    write_sounds(tmp_path, columns)
    write_frames(tmp_path, columns, looks(columns))

    def record(work, *rest, **options):
        tasks.append(cloudpickle.dumps(work))
        return map_shards(work, *rest, **options)

    monkeypatch.setattr("earshot.pipeline.stage.map_shards", record)
    run_label(tmp_path, *TEXTONS)
    assert len(tasks) == 3 and not any(b"00000." in task for task in tasks)


def test_only_training_frames_with_a_sound_shape_the_dictionary(tmp_path):
    columns = sounds_table(clips=30)
    training = (columns["split"] == "train") & ~columns["silent"]
    for name in "ab":
        write_sounds(tmp_path / name, columns)
    write_frames(tmp_path / "a", columns, looks(columns))
    write_frames(tmp_path / "b", columns, np.where(training, looks(columns), 2))
    for name in "ab":
        run_label(tmp_path / name, *TEXTONS)
    a, b = (tmp_path / name / "models" / "labeler" for name in "ab")
    np.testing.assert_array_equal(load_textons(a).textons, load_textons(b).textons)
    np.testing.assert_array_equal(load_labeler(a).model.centroids, load_labeler(b).model.centroids)
    assert (read_labels(tmp_path / "a")["label"] != read_labels(tmp_path / "b")["label"]).any()


def test_textons_that_are_stopped_go_on_to_the_same_bytes_without_fitting_again(tmp_path, monkeypatch):
    columns = sounds_table(clips=30)
    for name in ("whole", "stopped"):
        write_sounds(tmp_path / name, columns)
        write_frames(tmp_path / name, columns, looks(columns))
    run_label(tmp_path / "whole", *TEXTONS)

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    textons = "earshot.labels.models.textons"
    pixels = [f"{textons}.write_pixels", f"{textons}.fit_textons"]
    for stopping in ([f"{textons}.write_histograms"], [*pixels, "earshot.labels.labeler.fit_labeler"]):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            for name in stopping:
                patch.setattr(name, stop)
            run_label(tmp_path / "stopped", *TEXTONS)
    with monkeypatch.context() as patch:
        for name in (*pixels, f"{textons}.write_histograms"):
            patch.setattr(name, stop)
        run_label(tmp_path / "stopped", *TEXTONS)
    for folder in ("data/labels", "models/labeler", "metrics"):
        for path in (tmp_path / "whole" / folder).iterdir():
            assert path.read_bytes() == (tmp_path / "stopped" / folder / path.name).read_bytes()


def another_clip(scenes: Path) -> None:
    table = pq.read_table(scenes / "00001.parquet")
    names = ["stranger", *table["clip_id"].to_pylist()[1:]]
    pq.write_table(table.set_column(0, "clip_id", pa.array(names)), scenes / "00001.parquet")


def a_clip_less(scenes: Path) -> None:
    table = pq.read_table(scenes / "00000.parquet")
    pq.write_table(table.slice(0, len(table) - 1), scenes / "00000.parquet")


def a_shard_less(scenes: Path) -> None:
    (scenes / "00001.parquet").unlink()


def no_image(scenes: Path) -> None:
    table = pq.read_table(scenes / "00000.parquet")
    frames = [[b"no image"] * MOMENTS for _ in range(len(table))]
    index = table.schema.get_field_index("frames")
    pq.write_table(table.set_column(index, "frames", pa.array(frames)), scenes / "00000.parquet")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (another_clip, "00001.parquet: rows 0 to 19 are not the moments of"),
        (a_clip_less, "00000.parquet: 100 rows for the 96 frames of"),
        (a_shard_less, "2 shards of sounds, 1 of scenes in"),
        (no_image, "00000.parquet: frame 0 is not a complete JPEG image"),
    ],
)
def test_scenes_that_are_not_those_of_the_sounds_are_refused_in_one_line(tmp_path, fault, message):
    columns = sounds_table(clips=30)
    write_sounds(tmp_path, columns)
    write_frames(tmp_path, columns, looks(columns))
    fault(tmp_path / "data" / "scenes")
    with pytest.raises(SystemExit) as refusal:
        run_label(tmp_path, *TEXTONS)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("model", ["clusters", "binary", "textons"])
def test_every_label_model_labels_the_rendered_world(tiny_root, tmp_path, model):
    (tmp_path / "data").mkdir()
    (tmp_path / "models").mkdir()
    for table in ("data/sounds", "data/scenes", "models/descriptor"):
        (tmp_path / table).symlink_to(tiny_root / table)
    run_label(tmp_path, f"label.model={model}", "label.components=8", "label.textons=64")
    labels = read_labels(tmp_path)
    labeled = labels["label"][labels["label"] >= 0]
    assert len(labels["label"]) == 96 and len(labeled) > 90
    assert len(set(labeled)) > 8 if model == "binary" else set(labeled) == {0, 1, 2, 3}
    kind = kind_of_labels(tmp_path / "data" / "labels")
    assert (kind.outputs, kind.chance) == ((8, 0.5) if model == "binary" else (4, 0.25))


def silence(columns):
    columns["silent"][:] = True


def mostly_silent(columns):
    columns["silent"][:] = np.cumsum(columns["split"] == "train") > 20


def one_training_group(columns):
    columns["group"][columns["split"] == "train"] = "video0"


def not_finite(columns):
    columns["descriptor"][3, 0] = np.inf


def no_group(columns):
    del columns["group"]


def shorter(columns):
    columns["descriptor"] = columns["descriptor"][:, :500]


@pytest.mark.parametrize(
    ("fault", "overrides", "message"),
    [
        (silence, [], "160 training moments, 160 of them silent; too few for 4 clusters"),
        (lambda columns: None, ["clusters=500"], "too few for 500 clusters: give more clips or lower clusters"),
        (one_training_group, ["label.control=wrong-sound"], "the training split has one group"),
        (mostly_silent, ["label.model=binary"], "160 training moments, 140 of them silent; too few for 30 components"),
        (not_finite, [], "00000.parquet: a descriptor holds values that are not finite"),
        (no_group, [], "00000.parquet: has no column group"),
        (shorter, [], "descriptors of 500 dimensions, expected the 502 of texture"),
    ],
)
@pytest.mark.filterwarnings("ignore:split train")
def test_a_table_that_cannot_be_labeled_is_refused_in_one_line(tmp_path, capsys, fault, overrides, message):
    columns = sounds_table()
    fault(columns)
    write_sounds(tmp_path, columns)
    with pytest.raises(SystemExit) as refusal:
        run_label(tmp_path, *overrides)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (tmp_path / "data" / "labels").exists()
