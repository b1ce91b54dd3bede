"""The rows of the three papers' tables: what is trained, on which noise, what was printed, what it costs.

A row is a method as its ``as_published()`` has it, with the ``changes`` of that table, on noise of a kind of
``plant_noise``. ``published`` says where numbers are printed, what they measure, and has (number, deviation
or None). A row is named by its table and its condition: data set, kind of noise and rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from published import (
    DIVIDEMIX,
    INN_1,
    INN_2,
    INN_3,
    INN_D2,
    INN_OTHERS,
    JOSRC_1,
    JOSRC_2,
    JOSRC_5,
    JOSRC_OTHERS,
    VRLVMIX_1,
    VRLVMIX_2,
    VRLVMIX_4,
    VRLVMIX_OTHERS,
)

from noisefilter import (
    CoTeachingClassifier,
    CoTeachingPlusClassifier,
    DecouplingClassifier,
    DivideMixClassifier,
    ELRClassifier,
    INNDivideMixClassifier,
    INNScorer,
    JoCoRClassifier,
    JoSRCClassifier,
    MCorrectionClassifier,
    PENCILClassifier,
    ScanMixClassifier,
    UNICONClassifier,
    VRLVMixClassifier,
)
from noisefilter.networks import PreActResNet18

Published = dict[tuple[str, str], tuple[float, float | None]]

LOOKS = 6  # of INN's Table 1: after 50, 100, ..., 300 epochs
MEASURES = {
    "best": "accuracy, best epoch", "last": "accuracy, last epoch", "last_10": "accuracy, last ten epochs",
    "id_best": "precision of ID, best epoch", "id_last": "precision of ID, last epoch",
    "ood_best": "precision of OOD, best epoch", "ood_last": "precision of OOD, last epoch",
    "auc_ce": "AUC of CE, best", "auc_ne": "AUC of CE + NE, best", "auc_inn": "AUC of INN, best",
}  # fmt: skip

# What "symmetric" and "asymmetric" are in each paper. A draw from all classes may hit the right one;
# "pair" is the next class, which INN calls asymmetric on CIFAR-100, and Jo-SRC's code everywhere.
DIVIDEMIX_NOISE = {"sym": "symmetric", "asym": "asymmetric"}
INN_NOISE = DIVIDEMIX_NOISE | {"c100-asym": "pair"}
CLOSED = {"sym": "symmetric_excluding", "asym": "pair"}
OPEN = {"sym": "open_set", "asym": "open_set_pair"}
# The weight of guesses that DivideMix's authors chose for each noise; who builds on it says no other.
LAMBDA_U = {
    "c10-sym20": 0.0, "c10-sym50": 25.0, "c10-sym80": 25.0, "c10-sym90": 50.0,
    "c10-asym10": 0.0, "c10-asym30": 0.0, "c10-asym40": 0.0,
    "c100-sym80": 150.0, "c100-sym90": 150.0, "c100-asym40": 150.0,
}  # fmt: skip
# What Table IV of VRLVMix is with: by its numbers SCAN under asymmetric noise, too; Table II is without.
SCAN: dict[str, dict[str, Any]] = {
    "c10-asym40": {"pretrain": "simclr", "scan": True}, "c10-sym80": {}, "c10-sym90": {},
}  # fmt: skip
NO_SCAN = {"pretrain": None, "scan": False}
WITHOUT: dict[str, dict[str, Any]] = {
    "full": {}, "no-variation": {"variation": False}, "no-balance": {"balance": False}, "no-scan": NO_SCAN,
    "no-balance-scan": NO_SCAN | {"balance": False},
}  # fmt: skip


def noise(name: str, kinds: dict[str, str] = DIVIDEMIX_NOISE) -> dict[str, Any]:
    """Read data set, kind and rate off a condition: "c10-sym80", or "sym80" on CIFAR-100."""
    condition = name.rstrip("0123456789")
    kind = kinds.get(condition) or kinds[condition.split("-")[-1]]
    data = "cifar10" if name.startswith("c10-") else "cifar100"
    return {"data": data, "noise": kind, "rate": int(name.removeprefix(condition)) / 100}


def weighed(name: str) -> dict[str, Any]:
    """Return the weight of guesses of a condition."""
    return {"unlabeled_weight": LAMBDA_U[name]}


def penalized(name: str) -> dict[str, Any]:
    """Return the warm-up of a condition: under asymmetric noise it is not to be too sure."""
    return weighed(name) | ({"confidence_penalty": True} if "asym" in name else {})


def dividemix(name: str) -> dict[str, Any]:
    """Return what DivideMix's authors chose for a condition."""
    heavy = {"clean_threshold": 0.6, "loss_epochs": 5} if name.endswith("sym90") else {}
    return penalized(name) | heavy | ({"warmup_epochs": 30} if name.startswith("c100") else {})


def vrlvmix(name: str) -> dict[str, Any]:
    """Return what VRLVMix changes for a condition: SimCLR and SCAN are for heavy symmetric noise."""
    return penalized(name) | ({} if name in ("c10-sym80", "c10-sym90") else NO_SCAN)


def remembered(name: str) -> dict[str, Any]:
    """Return ELR's settings of a condition of CIFAR-10."""
    return {"beta": 0.9, "strength": 1.0} if "asym" in name else {"beta": 0.7, "strength": 3.0}


def uniform(name: str) -> dict[str, Any]:
    """Return UNICON's settings of a condition of CIFAR-10."""
    heavy = {"unlabeled_share": 1.0} if name.endswith("sym90") else {}
    return heavy | ({"confidence_penalty": True} if "asym" in name else {})


def scanned(name: str) -> dict[str, Any]:
    """Return ScanMix's settings of a condition: DivideMix's."""
    return dividemix(name)


def forgotten(name: str, method: str) -> dict[str, Any]:
    """Return which share of the labels is forgotten in JoCoR's experiments: of flips, half of the rate."""
    if method == "decoupling":
        return {}
    rate = noise(name, CLOSED)["rate"] * (0.5 if "asym" in name else 1.0)
    return {"noise_rate": rate} | ({"agreement": 0.85} if method == "jocor" else {})


def printed(source: str, measures: str, *numbers: Any) -> Published:
    """Say where numbers are printed, and what they measure; a number may have its deviation beside it."""
    pairs = [each if isinstance(each, tuple) else (each, None) for each in numbers]
    return {(source, measure): pair for measure, pair in zip(measures.split(), pairs, strict=False)}


# INN's last accuracies stand beside DivideMix's, which are means of ten epochs.
INN_TABLES = {"INN, Tables 2 and D.1": INN_2, "INN, Table D.2": INN_D2}
RERUNS = {
    name: printed(f"{source}, rerun", "best last_10", *found["dividemix"])
    for source, table in INN_TABLES.items() for name, found in table.items()
}  # fmt: skip

ROWS: dict[str, dict[str, Any]] = {
    f"josrc1-{name}": {
        **noise(name, CLOSED), "trainer": JoSRCClassifier, "changes": {},
        "published": printed("Jo-SRC, Table 1", "last_10", accuracy),
    }
    for name, accuracy in JOSRC_1.items()
}  # fmt: skip
ROWS |= {
    f"josrc2-{name}": {
        **noise(name, OPEN), "trainer": JoSRCClassifier, "changes": {},
        "published": printed("Jo-SRC, Table 2", "last_10", accuracy)
        | printed("Jo-SRC, Table 5", "id_best id_last ood_best ood_last", *JOSRC_5[name]),
    }
    for name, accuracy in JOSRC_2.items()
}  # fmt: skip
ROWS |= {
    f"inn1-{name}": {
        **noise(name, INN_NOISE), "trainer": INNScorer, "changes": {"max_epochs": 300},
        "published": printed("INN, Table 1", "auc_ce auc_ne auc_inn", *aucs),
    }
    for name, aucs in INN_1.items()
}  # fmt: skip
ROWS |= {
    f"dividemix-{name}": {
        **noise(name, INN_NOISE), "trainer": DivideMixClassifier, "changes": dividemix(name),
        "published": printed("DivideMix", "best last_10", *DIVIDEMIX.get(name, ())) | RERUNS.get(name, {}),
    }
    for name in dict.fromkeys([*DIVIDEMIX, *INN_2])
}  # fmt: skip
ROWS |= {
    f"inn2-{name}": {
        **noise(name, INN_NOISE), "trainer": INNDivideMixClassifier, "changes": weighed(name),
        "published": printed(source, "best last_10", *found["inn"]),
    }
    for source, table in INN_TABLES.items() for name, found in table.items()
}  # fmt: skip
ROWS |= {
    f"inn3-{many}-{few}-{method}": {
        "data": "cifar10", "noise": "binary_imbalanced", "rate": 0.3, "classes": (many - 1, few - 1),
        "trainer": trainer, "changes": {},
        "published": printed("INN, Table 3", "best last_10", *found[method]),
    }
    for (many, few), found in INN_3.items()
    for method, trainer in (("dividemix", DivideMixClassifier), ("inn", INNDivideMixClassifier))
}  # fmt: skip
ROWS |= {
    f"vrlvmix{number}-{name}": {
        **noise(name), "trainer": VRLVMixClassifier, "changes": vrlvmix(name),
        "published": printed(f"VRLVMix, Table {'I' * number}", "best", accuracy),
    }
    for number, table in ((1, VRLVMIX_1), (2, VRLVMIX_2)) for name, accuracy in table.items()
}  # fmt: skip
ROWS |= {
    f"vrlvmix4-{name}-{part}": {
        **noise(name), "trainer": VRLVMixClassifier, "changes": vrlvmix(name) | SCAN[name] | WITHOUT[part],
        "published": printed("VRLVMix, Table IV", "best last", *accuracies),
    }
    for name, parts in VRLVMIX_4.items() for part, accuracies in parts.items()
}  # fmt: skip
PAIRS_OF_NETS = {
    "decoupling": DecouplingClassifier, "co_teaching": CoTeachingClassifier,
    "co_teaching_plus": CoTeachingPlusClassifier, "jocor": JoCoRClassifier,
}  # fmt: skip
ROWS |= {
    f"josrc{number}-{name}-{method}": {
        **noise(name, CLOSED if number == 1 else OPEN), "trainer": PAIRS_OF_NETS[method],
        "changes": forgotten(name, method),
        "published": printed(f"Jo-SRC, Table {number}", "last_10", accuracy),
    }
    for number, columns in JOSRC_OTHERS.items() for method, column in columns.items()
    for name, accuracy in column.items()
}  # fmt: skip
ROWS |= {
    f"inn2-{name}-{method}": {
        **noise(name, INN_NOISE), "trainer": trainer, "changes": changes,
        "published": printed("INN, Tables 2 and D.1", "best last_10", *INN_OTHERS[method][name]),
    }
    for method, trainer, own in (
        ("co_teaching_plus", CoTeachingPlusClassifier, {"network": PreActResNet18}),
        ("pencil", PENCILClassifier, {}), ("m_correction", MCorrectionClassifier, {}),
    )
    for name in INN_OTHERS[method]
    for changes in [own | (forgotten(name, method) if method == "co_teaching_plus" else {})]
}  # fmt: skip
ROWS |= {
    f"vrlvmix{number}-{name}-{method}": {
        **noise(name), "trainer": trainer, "changes": settings(name),
        "published": printed(f"VRLVMix, Table {'I' * number}", "best", accuracy),
    }
    for method, trainer, settings in (
        ("elr", ELRClassifier, remembered), ("unicon", UNICONClassifier, uniform),
        ("scanmix", ScanMixClassifier, scanned),
    )
    for number, columns in VRLVMIX_OTHERS.items()
    for name, accuracy in columns.get(method, {}).items()
}  # fmt: skip
for name, same in (
    ("vrlvmix1-c10-sym80", "vrlvmix4-c10-sym80-full"),
    ("vrlvmix1-c10-sym90", "vrlvmix4-c10-sym90-full"),
    ("vrlvmix2-c10-asym40", "vrlvmix4-c10-asym40-no-scan"),
):
    ROWS[name]["published"] |= ROWS.pop(same)["published"]


# --- what a row costs: passes over images, forward and backward (T) and forward alone (F) ------------


class Sizes(NamedTuple):
    """Images of a row: those to train on, those of them with a right label, and those of the test."""

    n: int
    right: float
    tests: int


def sizes(row: dict[str, Any]) -> Sizes:
    """Return how many images a row has."""
    n, tests = (5_500, 2_000) if "classes" in row else (50_000, 10_000)
    classes, rate = 10 if row["data"] == "cifar10" else 100, row["rate"]
    wrong = {"symmetric": rate * (classes - 1) / classes, "asymmetric": rate / 2}.get(row["noise"], rate)
    return Sizes(n, n * (1 - wrong), tests)


def passes(row: dict[str, Any]) -> tuple[float, float]:
    """Return the passes (T, F) of a row, if as many labels are believed as are right."""
    own, size = row["trainer"].as_published(**row["changes"]), sizes(row)
    return PASSES[row["trainer"]](own, size)


def josrc_passes(own: Any, size: Sizes) -> tuple[float, float]:
    """Two views, and after the warm-up the teacher's look at both."""
    epochs, later = own.max_epochs, own.max_epochs - own.warmup_epochs
    return 2 * epochs * size.n, 2 * later * size.n + epochs * size.tests


def scoring_passes(own: Any, n: int) -> float:
    """Interior evaluations on all paths, and end points once."""
    return n * (1 + own.n_interior * own.n_neighbors)


def inn_passes(own: Any, size: Sizes) -> tuple[float, float]:
    """Three networks, of which one is scored along paths."""
    return 3 * own.max_epochs * size.n, LOOKS * (scoring_passes(own, size.n) + 2 * size.n)


def dividemix_passes(own: Any, size: Sizes) -> tuple[float, float]:
    """Warm-up; two networks, six looks at a labeled row and four updates; a look at all rows an epoch."""
    epochs, warm = own.max_epochs, own.warmup_epochs
    trained = 2 * warm * size.n + 8 * (epochs - warm) * size.right
    return trained, 12 * (epochs - warm) * size.right + 2 * epochs * (size.n + size.tests)


def inn_dividemix_passes(own: Any, size: Sizes) -> tuple[float, float]:
    """Four networks to score by; two looks at a labeled row, later six; two scorings a round."""
    epochs, first = own.max_epochs, own.warmup_epochs
    rounds = (epochs - first) / own.rescore_every
    trained = 4 * own.scoring_epochs * size.n + 8 * epochs * size.right
    looks = (4 * first + 12 * (epochs - first)) * size.right + 2 * epochs * (size.n + size.tests)
    return trained, looks + 2 * (1 + rounds) * scoring_passes(own, size.n)


def vrlvmix_passes(own: Any, size: Sizes) -> tuple[float, float]:
    """As DivideMix, and of all rows SimCLR's two views, and SCAN's pairs by both networks."""
    trained, looks = dividemix_passes(own, size)
    if own.pretrain is not None:
        trained += 2 * own.pretrain_epochs * size.n
    if getattr(own, "scan", None) is not False:
        trained += 4 * (own.max_epochs - own.warmup_epochs) * size.n
    return trained, looks


def pair_passes(own: Any, size: Sizes) -> tuple[float, float]:
    """Two networks, each forward and backward on all rows, and a look at all rows an epoch."""
    return 2 * own.max_epochs * size.n, 2 * own.max_epochs * (size.n + size.tests)


def single_passes(own: Any, size: Sizes) -> tuple[float, float]:
    """One network, and a look at all rows an epoch."""
    return own.max_epochs * size.n, own.max_epochs * (size.n + size.tests)


def unicon_passes(own: Any, size: Sizes) -> tuple[float, float]:
    """As DivideMix, with other numbers of unlabeled rows, of which two views are contrasted beside."""
    epochs, warm = own.max_epochs, own.warmup_epochs
    guessed = size.right * min(5.0, own.unlabeled_share * size.n / size.right)
    trained = 2 * warm * size.n + 4 * (epochs - warm) * (size.right + 2 * guessed)
    return trained, 4 * (epochs - warm) * (size.right + 2 * guessed) + 2 * epochs * (size.n + size.tests)


PASSES: dict[Any, Callable[[Any, Sizes], tuple[float, float]]] = {
    JoSRCClassifier: josrc_passes, INNScorer: inn_passes, DivideMixClassifier: dividemix_passes,
    INNDivideMixClassifier: inn_dividemix_passes, VRLVMixClassifier: vrlvmix_passes,
    ScanMixClassifier: vrlvmix_passes, UNICONClassifier: unicon_passes,
    **dict.fromkeys(PAIRS_OF_NETS.values(), pair_passes),
    **dict.fromkeys((ELRClassifier, MCorrectionClassifier, PENCILClassifier), single_passes),
}  # fmt: skip
