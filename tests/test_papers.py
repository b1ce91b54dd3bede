"""The papers' tables as a benchmark: its rows, the noise it keeps, its budget, and what it shows."""

import importlib
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def papers():
    sys.path.insert(0, str(BENCHMARKS))  # the scripts import one another by name
    try:
        yield importlib.import_module("papers")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def rows(papers):
    return importlib.import_module("paper_rows").ROWS


@pytest.fixture(scope="module")
def pieces(papers):
    return importlib.import_module("pieces")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Generated images, laid out as the real files are: every class has a color of its own."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, n_classes, n in (("cifar10", 10, 2000), ("cifar100", 100, 2000)):
        colors = rng.integers(40, 216, size=(n_classes, 1, 1, 3))
        arrays = {}
        for part, size in (("train", n), ("test", 200)):
            labels = rng.permutation(np.arange(size) % n_classes)
            images = colors[labels] + rng.integers(-40, 40, size=(size, 32, 32, 3))
            arrays |= {f"X_{part}": images.astype(np.uint8), f"y_{part}": labels}
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


# --- the rows -------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_papers(rows):
    published = {name: row["published"] for name, row in rows.items()}
    assert published["josrc2-sym20"] == {
        ("Jo-SRC, Table 2", "last_10"): (65.83, 0.13),
        ("Jo-SRC, Table 5", "id_best"): (60.91, None),
        ("Jo-SRC, Table 5", "id_last"): (42.62, None),
        ("Jo-SRC, Table 5", "ood_best"): (59.54, None),
        ("Jo-SRC, Table 5", "ood_last"): (54.38, None),
    }
    assert published["josrc1-asym40"] == {("Jo-SRC, Table 1", "last_10"): (38.52, 0.20)}
    assert published["inn1-c100-asym40"] == {
        ("INN, Table 1", "auc_ce"): (0.589, 0.002),
        ("INN, Table 1", "auc_ne"): (0.608, 0.003),
        ("INN, Table 1", "auc_inn"): (0.671, 0.005),
    }
    assert published["inn2-c10-sym90"] == {
        ("INN, Tables 2 and D.1", "best"): (81.20, 1.05),
        ("INN, Tables 2 and D.1", "last_10"): (80.51, 1.05),
    }
    assert published["inn3-3-8-dividemix"] == {
        ("INN, Table 3", "best"): (87.49, 0.68),
        ("INN, Table 3", "last_10"): (82.24, 1.65),
    }
    assert published["dividemix-c10-sym90"][("DivideMix", "best")] == (76.0, None)
    assert published["vrlvmix2-c10-asym40"] == {
        ("VRLVMix, Table II", "best"): (94.9, None),
        ("VRLVMix, Table IV", "best"): (94.97, None),
        ("VRLVMix, Table IV", "last"): (94.80, None),
    }


def test_every_row_has_numbers_that_can_be(papers, rows):
    for name, row in rows.items():
        assert row["published"], name
        for (_, measure), (value, deviation) in row["published"].items():
            assert measure in papers.MEASURES, name
            assert math.isfinite(value) and 0 < value <= (1 if measure.startswith("auc") else 100), name
            assert deviation is None or 0 < deviation < value / 10, name


def test_the_best_epoch_is_no_worse_than_the_last(rows):
    seen = 0
    for name, row in rows.items():
        for (source, measure), (last, _) in row["published"].items():
            best = row["published"].get((source, measure.replace("last_10", "best").replace("last", "best")))
            if "last" in measure and best is not None:
                seen += 1
                assert best[0] >= last, name
    assert seen > 30


@pytest.mark.parametrize(
    "name, data, noise, rate",
    [
        ("josrc1-sym50", "cifar100", "symmetric_excluding", 0.5),
        ("josrc1-asym40", "cifar100", "pair", 0.4),
        ("josrc2-sym80", "cifar100", "open_set", 0.8),
        ("josrc2-asym40", "cifar100", "open_set_pair", 0.4),
        ("inn1-c10-sym90", "cifar10", "symmetric", 0.9),
        ("inn1-c100-asym40", "cifar100", "pair", 0.4),
        ("inn2-c100-asym40", "cifar100", "pair", 0.4),
        ("inn3-7-9-inn", "cifar10", "binary_imbalanced", 0.3),
        ("dividemix-c10-asym40", "cifar10", "asymmetric", 0.4),
        ("dividemix-c100-asym40", "cifar100", "pair", 0.4),
        ("vrlvmix1-c10-sym20", "cifar10", "symmetric", 0.2),
        ("vrlvmix4-c10-asym40-full", "cifar10", "asymmetric", 0.4),
        ("josrc2-asym40-jocor", "cifar100", "open_set_pair", 0.4),
        ("inn2-c100-sym90-pencil", "cifar100", "symmetric", 0.9),
        ("vrlvmix2-c10-asym30-elr", "cifar10", "asymmetric", 0.3),
    ],
)
def test_noise_is_what_the_paper_means(rows, name, data, noise, rate):
    assert (rows[name]["data"], rows[name]["noise"], rows[name]["rate"]) == (data, noise, rate)


def test_settings_are_those_of_each_noise(rows):
    changes = {name: row["changes"] for name, row in rows.items()}
    assert changes["dividemix-c10-sym20"] == {"unlabeled_weight": 0.0}
    assert changes["dividemix-c10-sym90"] == {
        "unlabeled_weight": 50.0, "clean_threshold": 0.6, "loss_epochs": 5,
    }  # fmt: skip
    assert changes["dividemix-c10-asym40"] == {"unlabeled_weight": 0.0, "confidence_penalty": True}
    assert changes["dividemix-c100-sym80"] == {"unlabeled_weight": 150.0, "warmup_epochs": 30}
    assert rows["inn3-7-9-inn"]["classes"] == (6, 8)
    assert changes["vrlvmix1-c10-sym90"] == {"unlabeled_weight": 50.0}
    assert changes["josrc1-asym40-jocor"] == {"noise_rate": 0.2, "agreement": 0.85}
    assert changes["josrc1-sym20-co_teaching"] == {"noise_rate": 0.2}
    assert changes["vrlvmix1-c10-sym90-unicon"] == {"unlabeled_share": 1.0}
    assert changes["vrlvmix2-c10-asym40-elr"] == {"beta": 0.9, "strength": 1.0}
    assert changes["vrlvmix1-c10-sym90-scanmix"] == changes["dividemix-c10-sym90"]
    assert changes["vrlvmix1-c10-sym50"] == {"unlabeled_weight": 25.0, "pretrain": None, "scan": False}


def test_rows_that_stand_for_two_are_one_training(rows):
    module = importlib.import_module("paper_rows")
    for name, condition, part in (
        ("vrlvmix1-c10-sym80", "c10-sym80", "full"),
        ("vrlvmix1-c10-sym90", "c10-sym90", "full"),
        ("vrlvmix2-c10-asym40", "c10-asym40", "no-scan"),
    ):
        other = module.vrlvmix(condition) | module.SCAN[condition] | module.WITHOUT[part]
        assert rows[name]["changes"] == other


def test_every_row_is_a_configuration_that_can_be(rows):
    for row in rows.values():
        estimator = row["trainer"].as_published(**row["changes"])
        estimator._check_parameters()
        assert estimator.max_epochs in (150, 200, 300, 320, 350)


@pytest.mark.parametrize(
    "name, trained, looks",  # in millions, those at the test images among them
    [
        ("josrc2-sym20", 20, 19 + 2),
        ("inn1-c10-sym80", 45, 28),
        ("dividemix-c10-sym90", 23, 70),
        ("inn3-1-2-dividemix", 9, 18),
        ("inn3-1-2-inn", 10, 48),
        ("josrc1-sym20-jocor", 20, 24),
        ("inn2-c10-sym80-m_correction", 15, 18),
        ("vrlvmix1-c10-sym50-unicon", 106, 147),  # 27,500 believed, 25,000 beside
    ],
)
def test_passes_are_those_of_the_formulas(rows, name, trained, looks):
    found = importlib.import_module("paper_rows").passes(rows[name])
    assert found == pytest.approx((trained * 1e6, looks * 1e6), rel=0.05)


# --- the noise ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["josrc2-sym20", "dividemix-c10-asym40", "inn3-3-8-inn"])
def test_noise_is_kept_and_known_again(papers, rows, folder, tmp_path, name):
    row, path = rows[name], tmp_path / "kept" / papers.noise_file(rows[name], 1)
    task = papers.planted(folder, row, 1)
    papers.keep_noise(task, path)
    papers.keep_noise(papers.planted(folder, row, 1), path)
    with np.load(path) as kept:
        assert kept["labels"].dtype == np.uint8 and np.array_equal(kept["labels"], task.y)
        with np.load(folder / f"{row['data']}.npz") as archive:
            given = archive["y_train"]
        if "classes" in row:
            truth = np.where(given[kept["rows"]] == row["classes"][1], 1, 0)
            assert set(given[kept["rows"]]) == set(row["classes"])
            assert np.array_equal(truth, task.truth)
        else:
            assert np.array_equal(given, task.truth)
    with pytest.raises(SystemExit, match="must hold the labels that this row plants"):
        papers.keep_noise(papers.planted(folder, row, 2), path)


def test_strangers_are_not_among_the_test_images(papers, rows, folder):
    task = papers.planted(folder, rows["josrc2-sym20"], 0)
    assert task.y.max() == 79 and set(task.test[1]) == set(range(80))
    assert len(papers.planted(folder, rows["josrc1-sym20"], 0).test[1]) == 200


# --- the budget -----------------------------------------------------------------------------------


def trial(papers, folder, tmp_path, name, n, epochs, *more):
    """Run a row on n images; returns its record."""
    out = tmp_path / "found.jsonl"
    papers.main([
        "--data", str(folder), "--rows", name, "--shrink", str(n), str(epochs), "--network", "small",
        "--out", str(out), "--work", str(tmp_path / "work"), *more,
    ])  # fmt: skip
    (record,) = papers.done(out)
    return record


class Ticking:
    """A minute passes whenever somebody looks."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        self.seconds += 60.0
        return self.seconds


@pytest.mark.parametrize(
    "name, n, epochs, n_epochs",  # of one training, of all of the row
    [("josrc2-sym20", 100, 4, 4), ("dividemix-c10-sym80", 100, 4, 4), ("inn1-c10-sym80", 40, 2, 6)],
)
def test_a_budget_stops_and_the_next_call_goes_on_to_the_same_bits(
    papers, pieces, folder, tmp_path, monkeypatch, name, n, epochs, n_epochs
):
    whole = trial(papers, folder, tmp_path / "whole", name, n, epochs)
    assert whole["complete"] and whole["trial"] and whole["epochs"] == n_epochs < whole["wanted"]
    monkeypatch.setattr(papers, "Clock", lambda minutes: pieces.Clock(minutes, Ticking()))
    monkeypatch.setattr(pieces, "PART", 400_000)
    monkeypatch.setattr(papers.np, "savez_compressed", None)  # the noise is there by now
    (tmp_path / "cut").mkdir()
    (tmp_path / "whole" / "found").rename(tmp_path / "cut" / "found")
    seen = []
    while not seen or not seen[-1]["complete"]:
        seen.append(trial(papers, folder, tmp_path / "cut", name, n, epochs, "--budget", "12"))
        work = tmp_path / "cut" / "work"
        assert all(".safetensors." in path.name for path in work.rglob("epoch-*"))  # parts alone
        assert any(work.iterdir()) != seen[-1]["complete"]
        assert len(seen) < 20
    assert len(seen) > 1
    done = [record["epochs"] for record in seen]
    assert done == sorted(done) and 0 < done[0] < n_epochs == done[-1]
    for key in ("measured", "history", "wrong", "noise"):
        assert seen[-1][key] == whole[key]
    assert seen[-1]["history"] != seen[0]["history"]


def test_scores_are_those_of_the_scorer(papers, pieces, folder, rows, tmp_path):
    """The table looks at one training many times, so its score is put together from the scorer's parts."""
    row = rows["inn1-c10-sym80"]
    task = papers.planted(folder, row, 0).shrunk(60)
    published = row["trainer"].as_published
    scorer = published(network=papers.SmallCNN, max_epochs=2, random_state=0).fit(task.X, task.y)
    scores = papers.Scores("row", scorer, task, tmp_path, pieces.Clock())
    fitted = scorer._network()
    scores.ranked(fitted.h.net, "ce", 2)
    found = scores.ranked(fitted.f.net, "inn", 2)
    assert found == {"auc": papers.clean_auc(scorer.scores_, task.y != task.truth)}
    own = scores.ranked(fitted.f.net, "ne", 2)
    assert own == {"auc": papers.clean_auc(fitted.probs[range(60), scores.codes], task.y != task.truth)}
    assert found != own


def test_a_row_that_is_there_is_not_run_again(papers, folder, tmp_path, monkeypatch, capsys):
    record = trial(papers, folder, tmp_path, "dividemix-c10-sym80", 100, 1)
    monkeypatch.setattr(papers, "run_row", None)
    assert trial(papers, folder, tmp_path, "dividemix-c10-sym80", 100, 1) == record
    assert "already there" in capsys.readouterr().out


def test_trials_are_written_nowhere_by_themselves(papers):
    common = ["--data", "somewhere", "--rows", "josrc2-sym20"]
    assert papers.arguments(common).out == papers.RESULTS
    assert papers.arguments([*common, "--shrink", "10", "1"]).out is None
    assert papers.arguments([*common, "--network", "small"]).out is None


def test_shrinking_counts_warm_ups_in_proportion(papers, rows):
    row = rows["inn2-c10-sym80"]
    estimator = row["trainer"].as_published(**row["changes"])
    assert papers.shrunk(estimator, 100) == {
        "max_epochs": 100, "warmup_epochs": 10, "scoring_epochs": 17, "rescore_every": 3,
    }  # fmt: skip
    assert set(papers.shrunk(estimator, 1).values()) == {1}


def test_the_alarm_rings_where_there_are_no_epochs(pieces):
    with pytest.raises(pieces.OutOfTime), pieces.Clock(1e-4).alarm():
        time.sleep(60)


def test_a_checkpoint_in_parts_is_put_together(pieces, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PART", 100)
    data = np.random.default_rng(0).bytes(950)
    place = tmp_path / "row" / "simclr"
    place.mkdir(parents=True)
    (place / "epoch-0001.safetensors").write_bytes(b"older")
    (place / "epoch-0002.safetensors").write_bytes(data)
    pieces.pack(tmp_path)
    parts = sorted(place.iterdir())
    assert len(parts) == 10 and all(part.stat().st_size <= 100 for part in parts)
    pieces.unpack(tmp_path)
    (whole,) = place.iterdir()
    assert whole.name == "epoch-0002.safetensors" and whole.read_bytes() == data
    pieces.pack(tmp_path)
    parts[4].unlink()
    with pytest.raises(FileNotFoundError):
        pieces.unpack(tmp_path)


# --- what is shown --------------------------------------------------------------------------------


def record(row, seed=0, complete=True, trial=False, epochs=200, **measured):
    return {
        "row": row, "seed": seed, "complete": complete, "trial": trial, "epochs": epochs, "wanted": 200,
        "rows": 50_000, "network": "JoSRCNetwork", "device": "a GPU", "measured": measured,
    }  # fmt: skip


def test_list_has_every_row(papers, rows, capsys):
    papers.main(["--list"])
    heads = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [head.split(":")[0] for head in heads] == list(rows)
    assert "JoSRCNetwork, 200 epochs; cifar100, open_set 0.2; 20M T + 21M F" in heads[4]


def test_a_result_stands_beside_the_printed_number(papers, monkeypatch):
    found = [record("josrc1-sym20", 0, last_10=57.0), record("josrc1-sym20", 1, last_10=59.0)]
    monkeypatch.setattr(papers, "done", lambda: found)
    lines = [line for line in papers.tables().splitlines() if line.startswith("| `")]
    assert lines == [
        "| `josrc1-sym20` | Jo-SRC, Table 1 | accuracy, last ten epochs | 58.15 ± 0.14 | 58.00 ± 1.41 "
        "| -0.15 | 0, 1 | 200 | a GPU |"
    ]
    assert "`josrc1-sym20`" not in papers.tables().split("Not measured yet")[1]


@pytest.mark.parametrize("state", [{"complete": False}, {"trial": True}], ids=["cut", "trial"])
def test_a_partial_result_is_not_the_number_of_its_row(papers, monkeypatch, capsys, state):
    found = record("josrc1-sym20", epochs=120, best=61.5, **state)
    monkeypatch.setattr(papers, "done", lambda: [found])
    text = papers.tables()
    assert not any(line.startswith("| `") for line in text.splitlines())
    assert (
        "- `josrc1-sym20`, seed 0: 120 of 200 epochs of JoSRCNetwork on 50,000 images, on a GPU: accuracy, "
        "best epoch 61.50." in text
    )
    papers.main(["--list", "--rows", "josrc1-sym20"])
    assert "; 120 of 200 epochs\n" in capsys.readouterr().out


def test_measures_are_read_off_the_epochs(papers):
    history = [
        {"test_accuracy": accuracy, "id_precision": accuracy / 2, "ood_precision": None}
        for accuracy in (0.1, 0.6, 0.4)
    ]
    assert papers.measured({"trainer": history}) == pytest.approx(
        {"best": 60, "best_epoch": 2, "last": 40, "last_10": 110 / 3, "id_best": 30, "id_last": 20}
    )
    columns = {"ce": [{"auc": 0.8}, {}, {"auc": 0.7}], "ne": [{}]}
    assert papers.measured(columns) == {"auc_ce": 0.8}
