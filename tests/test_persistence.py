"""Files of verdicts, filters and trainers: the same to the last bit, and no harm from files of strangers.

``NOISEFILTER_FUZZ=5000`` tries that many changed files in each of the two fuzz tests, instead of 60.
"""

import inspect
import json
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from copy import deepcopy
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save as as_bytes
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

import noisefilter
from noisefilter import (
    DivideMixClassifier,
    FilteredClassifier,
    INNScorer,
    JoSRCClassifier,
    JoSRCSelector,
    LossVariationSelector,
    Net,
    Signals,
    SmallLossSelector,
    Verdict,
    VoteFilter,
    judge,
    load,
    save,
    tensorfile,
)
from noisefilter.base import BaseFilter
from noisefilter.errors import FileError, InputTypeError, NoiseFilterError, ParameterError
from noisefilter.networks import MLP
from noisefilter.trainer import BaseTrainer

EXAMPLES = int(os.environ.get("NOISEFILTER_FUZZ", "60"))
PUBLIC = [getattr(noisefilter, name) for name in noisefilter.__all__]
KINDS = [kind for kind in PUBLIC if inspect.isclass(kind) and issubclass(kind, BaseFilter | BaseTrainer)]
NAMES = np.array(["c", "a", "b"])
X, TRUTH = make_blobs(60, n_features=4, centers=3, random_state=0)
X, Y = X.astype(np.float32), NAMES[TRUTH]
MEMORY = 256 * 2**20  # bytes; of a file of some KB

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
pytestmark = pytest.mark.filterwarnings("ignore:max_epochs must leave at least")


def tiny(**parameters):
    """Return the prototype of a network that is trained in no time."""
    sizes = {"module__n_inputs": 4, "module__n_classes": 3, "module__hidden": (5,)}
    return Net(MLP, **{"max_epochs": 3, "batch_size": 20} | sizes | parameters)


def short(kind, **parameters):
    return kind(**{"estimator": tiny(), "random_state": 0} | parameters)


@pytest.fixture(scope="module")
def fitted():
    """One of each filter and trainer, fitted."""
    return {kind: short(kind).fit(pd.DataFrame(X, columns=list("pqrs")), Y) for kind in KINDS}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "saved.safetensors"


def through(thing, path, **how):
    save(thing, path)
    return load(path, **how)


def assert_same(one, other):
    """Compare two verdicts, or signals, in every field, dtypes too."""
    assert type(one) is type(other)
    for field in fields(one):
        value, again = getattr(one, field.name), getattr(other, field.name)
        if isinstance(value, Signals):
            assert_same(value, again)
        elif isinstance(value, np.ndarray):
            assert value.dtype == again.dtype and np.array_equal(value, again), field.name
        else:
            assert value == again or (value != value and again != again), field.name


def answers(thing, X=X, y=Y):
    return thing.score_new(X, y) if hasattr(thing, "score_new") else thing.predict_proba(X)


# --- the same as before ---------------------------------------------------------------------------


@every_kind
def test_what_is_loaded_is_what_was_saved(kind, fitted, path):
    before = fitted[kind]
    after = through(before, path)
    assert type(after) is kind and repr(after) == repr(before) and repr(clone(after)) == repr(clone(before))
    assert vars(after).keys() == vars(before).keys()
    assert_same(after.verdict_, before.verdict_)
    rows = pd.DataFrame(X, columns=list("pqrs"))
    assert np.array_equal(answers(after, rows), answers(before, rows))
    assert after.feature_names_in_.tolist() == list("pqrs") and after.n_features_in_ == 4
    assert np.array_equal(after.classes_, before.classes_) and after.classes_.dtype == before.classes_.dtype
    with pytest.raises(ValueError, match="feature names"):
        answers(after, pd.DataFrame(X, columns=list("abcd")))
    again = after.fit(rows, Y)
    assert_same(again.verdict_, before.verdict_)
    assert np.array_equal(answers(again, rows), answers(before, rows))


@every_kind
def test_what_only_some_have(kind, fitted, path):
    before, after = fitted[kind], through(fitted[kind], path)
    rows = pd.DataFrame(X, columns=list("pqrs"))
    if issubclass(kind, BaseFilter):
        assert_same(after.signals_, before.signals_)
        assert after.transform(rows) is rows
        for each in (before, after):
            each.set_params(output="features")
        assert np.array_equal(after.transform(rows), before.transform(rows))
        assert np.array_equal(after.get_feature_names_out(), before.get_feature_names_out())
        before.set_params(output="rows")
    else:
        assert after.history_ == before.history_ and after.score(rows, Y) == before.score(rows, Y)
        assert np.array_equal(after.network_classes_, before.network_classes_)
        pairs = zip(after.networks_, before.networks_, strict=True)
        assert all(torch.equal(a(torch.tensor(X)), b(torch.tensor(X))) for a, b in pairs)
        if hasattr(before, "labeled_"):
            assert np.array_equal(after.labeled_, before.labeled_)


@every_kind
def test_what_is_loaded_is_saved_the_same(kind, fitted, path, tmp_path):
    after = through(fitted[kind], path)
    save(after, tmp_path / "again")
    one, other = tensorfile.read_file(path), tensorfile.read_file(tmp_path / "again")
    assert one[0] == other[0] and one[1].keys() == other[1].keys()
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


SCRIPT = """
import sys
import numpy as np
from noisefilter import load
things = [load(path) for path in sys.argv[3:]]
seen = []  # the second time: what the library imports when first asked is not what loading does
sys.addaudithook(lambda event, _: seen.append(event))
things = [load(path) for path in sys.argv[3:]]
forbidden = {"pickle.find_class", "exec", "os.system", "subprocess.Popen", "socket.connect", "import"}
assert not forbidden & set(seen), forbidden & set(seen)
seen = []
X, y = np.load(sys.argv[1]), np.load(sys.argv[2])
found = [t.score_new(X, y) if hasattr(t, "score_new") else t.predict_proba(X) for t in things]
np.savez(sys.argv[1] + ".npz", *found)
"""


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_another_process_gets_the_same_bits_and_runs_nothing(fitted, tmp_path):
    np.save(tmp_path / "X.npy", X), np.save(tmp_path / "y.npy", Y)
    paths = [tmp_path / kind.__name__ for kind in KINDS]
    for kind, path in zip(KINDS, paths, strict=True):
        save(fitted[kind], path)
    given = map(str, [tmp_path / "X.npy", tmp_path / "y.npy", *paths])
    root = str(Path(noisefilter.__file__).parents[1])
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": threads}
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT, *given], env=environment, text=True,
                         capture_output=True, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr
    with np.load(str(tmp_path / "X.npy") + ".npz") as found:
        for kind, one in zip(KINDS, found.values(), strict=True):
            assert np.array_equal(one, answers(fitted[kind])), kind


@pytest.mark.parametrize("kind", [INNScorer, JoSRCClassifier], ids=lambda kind: kind.__name__)
def test_images_and_default_networks(kind, images, path):
    before = kind(max_epochs=2, random_state=0).fit(images.X, images.y)
    after = through(before, path)
    assert np.array_equal(answers(after, images.X, images.y), answers(before, images.X, images.y))


LABELS = {
    "longer texts": np.array(["a", "bb", "a long name ü"]),
    "bytes": np.array([b"x", b"yy", b"z"]),
    "objects": np.array(["x", "y", "ü\ud800"], dtype=object),
    "numbers as objects": np.array([3, -1, 10**20], dtype=object),
    "numbers": np.array([-1, 0, 2**40]),
    "small numbers": np.array([7, 0, 9], dtype=np.uint16),
    "big-endian": np.array([5, 6, 7], dtype=">i4"),
    "floats": np.array([1.0, 2.0, 30.0]),
    "dates": np.array(["2020-01-01", "2021-01-01", "1999-12-31"], dtype="datetime64[D]"),
}


@pytest.mark.parametrize("names", LABELS.values(), ids=LABELS)
def test_labels_keep_their_kind(names, path):
    probs = np.eye(3)[TRUTH] * 0.9 + 0.1 / 3
    rest = {"scores": np.arange(60.0), "partition": np.zeros(60), "alternatives": names[(TRUTH + 1) % 3]}
    verdict = Verdict(names[TRUTH], np.sort(names), **rest, threshold=float("-inf"))
    loaded = through(verdict, path)
    assert_same(loaded, verdict)
    assert [type(label) for label in loaded.labels.tolist()] == [type(n) for n in verdict.labels.tolist()]
    if names.dtype.kind in "USiuf":
        assert_same(through(judge(probs, names[TRUTH]), path), judge(probs, names[TRUTH]))


def test_two_classes_of_truths(path):
    before = short(SmallLossSelector, estimator=tiny(module__n_classes=2)).fit(X, TRUTH == 1)
    after = through(before, path)
    assert_same(after.verdict_, before.verdict_)
    assert np.array_equal(answers(after, X, TRUTH == 1), answers(before, X, TRUTH == 1))


def test_a_vote(path):
    members = [("inn", short(INNScorer)), ("loss", short(SmallLossSelector))]
    before = VoteFilter(members, random_state=0).fit(X, Y)
    after = through(before, path)
    assert vars(after).keys() == vars(before).keys() and repr(after) == repr(before)
    assert_same(after.verdict_, before.verdict_)
    assert np.array_equal(answers(after), answers(before))
    assert_same(after.named_filters_.inn.verdict_, before.named_filters_.inn.verdict_)
    assert_same(after.fit(X, Y).verdict_, before.verdict_)


def test_a_filter_that_was_told(fitted, path):
    told = SmallLossSelector(keep_signals=False).fit_signals(fitted[SmallLossSelector].signals_, Y)
    after = through(told, path)
    assert vars(after).keys() == vars(told).keys()
    assert_same(after.verdict_, told.verdict_)
    with pytest.raises(ParameterError, match="fitted by fit"):
        after.score_new(X, Y)


def test_signals_of_a_peer_and_neighbors(path):
    before = short(LossVariationSelector, peer=True, split="paper").fit(X, Y)
    assert before.signals_.peer is not None
    assert_same(through(before, path).signals_, before.signals_)


@pytest.mark.filterwarnings("ignore:The verdict to start from must leave")
def test_what_a_trainer_was_given_and_tested_on(path, tmp_path):
    before = short(DivideMixClassifier, filter=short(INNScorer), checkpoint_dir=tmp_path / "kept")
    before.fit(X, Y, eval_set=(X, Y))
    after = through(before, path)
    assert_same(after.given_verdict_, before.given_verdict_)
    assert after.eval_report_ == before.eval_report_ and after.history_ == before.history_
    # A folder of another machine is none of the model's.
    assert after.checkpoint_dir is None and "kept" not in path.read_bytes().decode("latin-1")
    assert repr(after.filter) == repr(before.filter)


def test_the_teacher_predicts_where_it_did(path):
    before = short(JoSRCClassifier, predict_with="teacher").fit(X, Y)
    after = through(before, path)
    assert np.array_equal(answers(after), answers(before))
    assert np.array_equal(answers(through(after, path)), answers(before))


def test_a_second_network_and_features_from_elsewhere(path):
    before = short(INNScorer, feature_network="own").fit(X, Y)
    assert np.array_equal(answers(through(before, path)), answers(before))
    before = short(INNScorer).fit(X, Y, features=np.arange(60)[:, None])
    after = through(before, path)
    assert_same(after.signals_, before.signals_)
    with pytest.raises(ParameterError, match="features must come from the network"):
        after.score_new(X, Y)


def test_rows_on_disk_come_along(path, tmp_path):
    np.save(tmp_path / "X.npy", X)
    before = short(INNScorer).fit(np.load(tmp_path / "X.npy", mmap_mode="r"), Y)
    scores = answers(before)
    save(before, path)
    (tmp_path / "X.npy").unlink()
    assert np.array_equal(answers(load(path)), scores)


def test_output_and_routing_are_remembered(path):
    before = short(SmallLossSelector).set_output(transform="pandas").fit(X, Y)
    with config_context(enable_metadata_routing=True):
        before.set_fit_request(features=True)
    after = through(before, path)
    assert after.transform(X).columns.tolist() == before.transform(X).columns.tolist()
    assert after.get_metadata_routing().fit.requests == {"features": True}


PARAMETERS = [
    {"estimator": tiny(optimizer=torch.optim.Adam, optimizer__betas=(0.8, 0.9), lr_drops=(0.5,))},
    {
        "estimator": NeuralNetClassifier(
            MLP, criterion=nn.CrossEntropyLoss, module__n_inputs=4, module__n_classes=3
        )
    },
    {"estimator": None, "network": MLP, "max_epochs": np.int64(2), "lr": np.float32(0.05)},
    {"estimator": tiny(), "window": np.float64(0.25), "row_score": "aum", "verbose": np.bool_(False)},
]


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_parameters(parameters, path):
    before = clone(SmallLossSelector(random_state=0, **parameters)).fit(X, Y)
    after = through(before, path)
    assert np.array_equal(answers(after), answers(before))
    assert_same(clone(after).fit(X, Y).verdict_, before.verdict_)


class Own(nn.Module):
    """A network of somebody's own."""

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.head = nn.Linear(n_inputs, n_classes)

    def forward(self, x):
        return self.head(x)


@pytest.mark.parametrize("kind", [SmallLossSelector, JoSRCSelector, DivideMixClassifier])
def test_networks_of_ones_own_are_handed_over(kind, path):
    before = kind(network=Own, max_epochs=2, random_state=0).fit(X, Y)
    save(before, path)
    with pytest.raises(FileError, match=r"your own network class, networks=\[Own\]"):
        load(path)
    assert np.array_equal(answers(load(path, networks=[Own])), answers(before))

    class Other(Own):
        def __init__(self, n_inputs, n_classes):
            super().__init__(n_inputs + 1, n_classes)

    Other.__qualname__ = "Own"
    with pytest.raises(FileError, match="do not fit"):
        load(path, networks=[Other])


def test_a_file_of_schema_1_is_still_read():
    """Written by 0.1.0: a SmallLossSelector as of `short`, fitted to `X` and `Y`."""
    old = load(Path(__file__).with_name("schema-1.safetensors"))
    assert isinstance(old, SmallLossSelector) and np.array_equal(old.verdict_.labels, Y)
    np.testing.assert_allclose(answers(old)[:4], SCHEMA_1, rtol=1e-3)


SCHEMA_1 = [-0.13127854, -0.09624931, -0.10354887, -0.16833303]


# --- what cannot be saved is said, before anything is written -------------------------------------


def test_what_has_no_place_in_a_file(path, fitted):
    class Mine(SmallLossSelector):
        pass

    class Local(Own):
        pass

    refused = [
        (ParameterError, "before fit", SmallLossSelector()),
        (InputTypeError, "no subclass, got Mine", short(Mine).fit(X, Y)),
        (InputTypeError, "no subclass, got Net", tiny()),
        (InputTypeError, "got dict", {}),
        (InputTypeError, "got FilteredClassifier", FilteredClassifier(INNScorer(), LogisticRegression())),
        (ParameterError, "estimator must be .*RandomForest",
         INNScorer(RandomForestClassifier(5), random_state=0).fit(X, Y)),
        (ParameterError, "^random_state must be .*RandomState",
         short(SmallLossSelector, random_state=np.random.RandomState(0)).fit(X, Y)),
        (ParameterError, "^estimator.callbacks must be .*LRScheduler",
         short(SmallLossSelector, estimator=tiny(callbacks=[LRScheduler()])).fit(X, Y)),
        (ParameterError, "^network must be one of .*Local",
         SmallLossSelector(network=Local, max_epochs=1).fit(X, Y)),
        (InputTypeError, "labels must be texts",
         replace(fitted[INNScorer].verdict_, labels=np.array([(1,), *[2] * 59], dtype=object))),
    ]  # fmt: skip
    for error, message, thing in refused:
        with pytest.raises(error, match=message):
            save(thing, path)
        assert not path.exists()


def test_parameters_that_changed_since_do_not_make_a_file_that_cannot_be_read(path):
    fitted = short(SmallLossSelector).fit(X, Y)
    scores = answers(fitted)
    with pytest.raises(ParameterError, match="window must be"):
        save(fitted.set_params(window=-1.0), path)
    fitted.set_params(window=0.5, estimator=None, network=None, max_epochs=7)
    assert np.array_equal(answers(through(fitted, path)), scores)
    forest = INNScorer(RandomForestClassifier(5), random_state=0).fit(X, Y).set_params(estimator=None)
    with pytest.raises(ParameterError, match=r"estimator must be None, .*RandomForestClassifier"):
        save(forest, path)


def test_a_failed_write_leaves_what_was_there(path, fitted, monkeypatch):
    save(fitted[INNScorer], path)
    before = path.read_bytes()

    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save(fitted[SmallLossSelector], path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_an_interrupt_while_loading_is_no_spoiled_file(path, fitted):
    """Wherever Python runs, even inside a call of torch: there a signal would be seen, too."""
    save(fitted[SmallLossSelector].verdict_, path)
    left = 0

    def struck(frame, event, argument):
        nonlocal left
        left -= event == "call"
        if not left:
            raise KeyboardInterrupt

    for calls in count(1):
        left = calls
        sys.setprofile(struck)
        try:
            load(path)
        except KeyboardInterrupt:
            continue
        finally:
            sys.setprofile(None)
        break
    assert calls > 50


def test_missing_folders_and_files_are_said_as_everywhere(path, fitted):
    with pytest.raises(FileNotFoundError):
        load(path)
    with pytest.raises(FileNotFoundError):
        save(fitted[INNScorer], path.parent / "none" / "file")


# --- files from strangers -------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return os.system, ("echo harm",)


def zipped(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside", bytes(10**6))


STRANGE = {
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(b"\x05"),
    "text": lambda path: path.write_text("label,score\n" * 100),
    "pickle": lambda path: path.write_bytes(pickle.dumps(Evil())),
    "torch": lambda path: torch.save({"a": torch.ones(2)}, path),
    "npy": lambda path: np.save(path.open("wb"), np.array([Evil()], dtype=object)),
    "zip": zipped,
    "huge header": lambda path: path.write_bytes((2**40).to_bytes(8, "little") + b"{}"),
    "header beyond the end": lambda path: path.write_bytes((10**6).to_bytes(8, "little") + b"{}"),
    "no json": lambda path: path.write_bytes((4).to_bytes(8, "little") + b"abcd"),
    "weights of others": lambda path: path.write_bytes(as_bytes({"a": torch.ones(2)})),
    "other header": lambda path: path.write_bytes(as_bytes({"a": torch.ones(2)}, {"noisefilter": "[1]"})),
    "deep": lambda path: path.write_bytes(as_bytes({}, {"noisefilter": "[" * 10**5})),
    "deep object": lambda path: path.write_bytes(as_bytes({}, {"noisefilter": '{"a":' * 10**5})),
}


@pytest.mark.parametrize("write", STRANGE.values(), ids=STRANGE)
def test_another_kind_of_file_is_refused(write, path):
    write(path)
    with pytest.raises(FileError, match=r"must be a whole file that noisefilter\.save wrote"):
        load(path)


def test_a_checkpoint_is_none(tmp_path):
    short(DivideMixClassifier, checkpoint_dir=tmp_path).fit(X, Y)
    for checkpoint in tmp_path.glob("epoch-*"):
        with pytest.raises(FileError, match="must be a whole file"):
            load(checkpoint)


def opened(path):
    """Return description and tensors of a file, without its seal."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["noisefilter"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
    del description["digest"]
    return description, tensors


def sealed(path, description, tensors):
    """Write what somebody made up, with the seal that belongs to it."""
    tensorfile.write_file(path, tensors, description)


def changed(path, change):
    description, tensors = opened(path)
    change(description, tensors)
    sealed(path, description, tensors)


def put(*names):
    """Return what sets a value in a description."""

    def setting(value):
        def change(description, tensors):
            inside = description
            for name in names[:-1]:
                inside = inside[name]
            inside[names[-1]] = value

        return change

    return setting


def tensor(name, change):
    return lambda description, tensors: tensors.update({name: change(tensors[name])})


parameter = lambda name, value: put("parameters", name)(value)  # noqa: E731
network = lambda name, value: put("fitted", "dict", "model", "dict", name)(value)  # noqa: E731
layers = lambda value: put("fitted", "dict", "model", "dict", "arguments", "dict", "hidden")(value)  # noqa: E731
HOSTILE = {
    "another class": put("object")("Popen"),
    "a path to import": put("object")("os.system"),
    "a function of ours": put("object")("plant_noise"),
    "a class of ours that is none of these": put("object")("SimCLR"),
    "a network in place of a filter": put("object")("MLP"),
    "a parameter that is not there": parameter("verdict_", 1),
    "a parameter out of range": parameter("window", -1.0),
    "a parameter of another type": parameter("max_epochs", {"tuple": [1]}),
    "a class that is not listed": parameter("network", {"class": "DataLoader"}),
    "a class of nobody": parameter("network", {"network": "os.system"}),
    "an unknown tag": parameter("network", {"call": "os.system"}),
    "too many entries": parameter("window", [0] * 2000),
    "nested deeply": parameter("window", json.loads("[" * 300 + "]" * 300)),
    "an attribute of a prototype": put("parameters", "estimator", "parameters", "predict_batch")("x"),
    "no verdict": lambda description, tensors: description.pop("verdict_"),
    "a missing weight": lambda description, tensors: tensors.pop("fitted.model.head.bias"),
    "a foreign weight": lambda d, tensors: tensors.update({"fitted.model.more": torch.ones(1)}),
    "weights that are not finite": tensor("fitted.model.head.bias", lambda t: t * float("nan")),
    "weights of another shape": tensor("fitted.model.head.bias", lambda t: t[:-1].clone()),
    "weights of another type": tensor("fitted.model.head.bias", lambda t: t.double()),
    "weights in bfloat16": tensor("fitted.model.head.bias", lambda t: t.bfloat16()),
    "one class less": tensor("fitted.model.head.bias", lambda t: t[:2].clone()),
    "a row of other columns": tensor("fitted.row", lambda t: t[:, :3].clone()),
    "a row that is not finite": tensor("fitted.row", lambda t: t + float("inf")),
    "a criterion that is none": network("criterion", {"class": "SGD"}),
    "a seed that is none": network("seed", -1),
    "a layer that would fill the memory": layers({"tuple": [10**9, 10**9]}),
    "a layer of no number": layers({"tuple": ["5"]}),
    "a layer beyond all numbers": layers({"tuple": [10**30]}),
    "rows missing": tensor("verdict_.scores", lambda t: t[:-1].clone()),
    "scores that are not finite": tensor("verdict_.scores", lambda t: t * float("nan")),
    "scores as bytes": tensor("verdict_.scores", lambda t: t.to(torch.uint8)[:, None].clone()),
    "a partition of four": tensor("verdict_.partition", lambda t: t + 3),
    "transitions of another shape": tensor("verdict_.transition_matrix", lambda t: t[:2].clone()),
    "transitions that are not finite": tensor("verdict_.transition_matrix", lambda t: t / 0),
    "a class more": tensor("verdict_.classes", lambda t: torch.cat([t, t[:1]])),
    "letters that are none": tensor("verdict_.labels", lambda t: torch.full_like(t, 255)),
    "labels of a dtype made up": put("verdict_", "arrays", "labels")({"dtype": "O"}),
    "labels of many fields": put("verdict_", "arrays", "labels")({"dtype": "i4,i4"}),
    "labels of no width": put("verdict_", "arrays", "labels")({"dtype": "<U0"}),
    "labels of another width": put("verdict_", "arrays", "labels")({"dtype": "<U999999"}),
    "values of lists": put("verdict_", "arrays", "labels")({"values": [[], {}]}),
    "signals of fewer rows": tensor("signals_.losses", lambda t: t[:, :-1].clone()),
    "signals that are not finite": tensor("signals_.losses", lambda t: t / 0),
    "signals without memory": tensor("signals_.losses", lambda t: torch.zeros((2**40, 0))),
    "planted rows that are not there": tensor("signals_.probe_rows", lambda t: t + 100),
    "columns of another number": put("attributes", "n_features_in_")(5),
    "names of columns that are none": put("attributes", "feature_names_in_")([1, 2, 3, 4]),
    "a container that is none": put("attributes", "set_output")("os"),
    "requests for something else": put("attributes", "requests")({"params": {"lr": 1}}),
    "a yardstick that is not finite": tensor("fitted.yardstick", lambda t: t * float("nan")),
    "a yardstick of many": tensor("fitted.yardstick", lambda t: t.repeat(3)),
}


@pytest.fixture
def small(fitted, path):
    """Return the path of the file of one filter."""
    save(fitted[SmallLossSelector], path)
    return path


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_parts_that_do_not_fit_are_refused_in_little_memory(change, small):
    changed(small, change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FileError, match=r"saved\.safetensors must hold what noisefilter\.save wrote"):
        load(small)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def test_a_newer_schema_is_named(small):
    changed(small, lambda description, _: description.update(schema=7, noisefilter="3.1.4"))
    with pytest.raises(FileError, match=r"got schema 7, written by noisefilter 3\.1\.4"):
        load(small)


def test_rows_of_a_trainer_are_of_a_size_that_can_be(fitted, path):
    save(fitted[DivideMixClassifier], path)
    for shape in ([10**6, 10**6], [0], [-4], [], [4, 4], ["4"], [5], [4.0]):
        save(fitted[DivideMixClassifier], path)
        changed(path, lambda description, _, shape=shape: description["fitted"]["dict"].update(shape=shape))
        with pytest.raises(FileError, match="do not fit"):
            load(path)


def test_members_of_a_vote_are_those_of_its_parameters(path):
    members = [("inn", short(INNScorer)), ("loss", short(SmallLossSelector))]
    save(VoteFilter(members, random_state=0).fit(X, Y), path)
    for change in (
        lambda description, _: description["members"].pop(),
        lambda description, _: description["members"].reverse(),
        lambda description, _: description.update(members=None),
    ):
        description, tensors = opened(path)
        change(description, tensors)
        sealed(path.with_name("other"), description, tensors)
        with pytest.raises(FileError, match="do not fit"):
            load(path.with_name("other"))


fuzzed = settings(max_examples=EXAMPLES, deadline=None, database=None,
                  suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip


@pytest.fixture(scope="module")
def files(fitted, tmp_path_factory):
    """Return the smallest files there are: what is in them, and a place for changed ones."""
    folder = tmp_path_factory.mktemp("fuzz")
    things = [fitted[SmallLossSelector].verdict_, fitted[SmallLossSelector], fitted[INNScorer],
              fitted[JoSRCSelector], fitted[DivideMixClassifier]]  # fmt: skip
    for i, thing in enumerate(things):
        save(thing, folder / f"{i}")
    return things, folder


def tried(path):
    """Load a file: what it holds, or None where it is refused by the one error there is."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return load(path)
    except FileError as error:
        assert len(str(error)) < 2000
        return None
    finally:
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


@fuzzed
@given(seed=st.integers(0, 2**32))
def test_bytes_that_change_are_found_out(files, seed):
    (things, folder), random = files, Random(seed)
    which = random.randrange(len(things))
    data = bytearray((folder / f"{which}").read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(random.choice([1, 1, 2, 8])):
        place = random.randrange(max(1, random.choice([9, header, len(data)])))
        kind = random.randrange(4)
        if kind == 0:
            data[place : place + 1] = bytes(
                byte ^ 1 << random.randrange(8) for byte in data[place : place + 1]
            )
        elif kind == 1:
            data[place : place + random.randrange(1, 20)] = b""
        elif kind == 2:
            data[place:place] = bytes(random.randrange(256) for _ in range(random.randrange(1, 20)))
        else:
            del data[max(place, 9) :]
        header = max(1, min(header, len(data)))
    (folder / "changed").write_bytes(data)
    loaded = tried(folder / "changed")
    if loaded is not None:
        same = [(loaded, things[which])] if which == 0 else [(loaded.verdict_, things[which].verdict_)]
        assert_same(*same[0])
        assert which == 0 or np.array_equal(answers(loaded), answers(things[which]))


VALUES = [
    None, True, False, 0, 1, -1, 3, 10**6, 10**30, -(2**63), 0.5, 1e308, "", "x", "MLP", "auto", "meta",
    "../../x",
    [], [1], [0] * 1500, [[[[]]]], {}, {"tuple": []}, {"tuple": [10**9]}, {"float": "nan"}, {"class": "MLP"},
    {"object": "INNScorer", "parameters": {}}, {"dict": {}}, {"dtype": "<U1"}, {"values": ["a"]},
    json.loads("[" * 200 + "]" * 200),
]  # fmt: skip


def places(inside):
    """List every place in a description: the container and the key."""
    found = []
    for key in list(inside) if isinstance(inside, dict) else range(len(inside)):
        found.append((inside, key))
        if isinstance(inside[key], dict | list):
            found += places(inside[key])
    return found


def tamper(description, tensors, random):
    """Change a description or a tensor somewhere."""
    if random.random() < 0.65:
        container, key = random.choice(places(description))
        if random.random() < 0.2:
            del container[key]
        elif random.random() < 0.2 and isinstance(container, dict):
            container[random.choice(["", "x", "tuple", "object", "fitted"])] = container.pop(key)
        else:
            container[key] = deepcopy(random.choice(VALUES))
        return
    name = random.choice(sorted(tensors))
    old = tensors.pop(name)
    new = random.choice([
        lambda: old[:-1].clone() if old.ndim else old[None], lambda: old[None].clone(), lambda: old.flatten(),
        lambda: old.double(), lambda: old.to(torch.int8), lambda: old.bool(), lambda: old.bfloat16(),
        lambda: old / 0, lambda: old * 0 - 1, lambda: torch.zeros((2**40, 0)), lambda: torch.zeros(0),
        lambda: torch.tensor(1.0), lambda: old.T.clone() if old.ndim == 2 else old, lambda: None,
    ])()  # fmt: skip
    if new is not None:
        tensors[name if random.random() < 0.8 else random.choice(["x", "fitted.x", name + ".x"])] = new


@fuzzed
@given(seed=st.integers(0, 2**32))
def test_made_up_files_are_refused_or_loaded(files, seed):
    """With the right seal, as somebody would write them who means harm."""
    (things, folder), random = files, Random(seed)
    description, tensors = opened(folder / f"{random.randrange(len(things))}")
    for _ in range(random.choice([1, 1, 1, 2, 5])):
        if tensors and description:
            tamper(description, tensors, random)
    sealed(folder / "changed", description, tensors)
    loaded = tried(folder / "changed")
    if isinstance(loaded, Verdict):
        assert (
            np.isfinite(loaded.scores).all() and repr(loaded) and len(loaded.suggested_labels) == len(loaded)
        )
    elif loaded is not None:
        assert np.isfinite(loaded.scores_).all() and repr(loaded) and repr(clone(loaded))
        usable(loaded)


def usable(loaded):
    """Ask something that was loaded about rows: it answers, or a sentence says why not."""
    try:
        found = answers(loaded, np.zeros((2, 4), np.float32), loaded.classes_[:2])
    except (NoiseFilterError, ValueError):
        return
    assert np.isfinite(found).all()


def test_the_file_can_be_read_by_hand(small):
    """As the documentation says: safetensors, and JSON in its header."""
    with safe_open(small, framework="numpy") as file:
        description = json.loads(file.metadata()["noisefilter"])
        assert file.get_tensor("verdict_.scores").shape == (60,)
    assert (description["schema"], description["object"]) == (1, "SmallLossSelector")
    assert description["noisefilter"] == noisefilter.__version__
