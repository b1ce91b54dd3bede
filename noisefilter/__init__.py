"""Find wrong labels, and train without learning them.

    X, y -> Net -> Signals -> scores -> Verdict -> Pipeline rows | trainer split | audit report

Importing this package does not import torch; the first name that needs it does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noisefilter.compose import FilteredClassifier, FilterSampler
    from noisefilter.criteria import (
        ConfidencePenaltyLoss,
        ELRLoss,
        GCELoss,
        HardBootstrappingLoss,
        IndexedDataset,
        SoftBootstrappingLoss,
        SymmetricCELoss,
    )
    from noisefilter.displays import ScoreHistogramDisplay, TransitionMatrixDisplay
    from noisefilter.filters.confident_learning import ConfidentLearningSelector
    from noisefilter.filters.inn import INNScorer
    from noisefilter.filters.josrc import JoSRCSelector
    from noisefilter.filters.loss_variation import LossVariationSelector
    from noisefilter.filters.small_loss import SmallLossSelector
    from noisefilter.judging import judge
    from noisefilter.net import Net
    from noisefilter.noise import plant_noise
    from noisefilter.persistence import load, save
    from noisefilter.selfsupervised import SCANClusterer, SimCLR
    from noisefilter.trainers.co_teaching import CoTeachingClassifier
    from noisefilter.trainers.co_teaching_plus import CoTeachingPlusClassifier
    from noisefilter.trainers.decoupling import DecouplingClassifier
    from noisefilter.trainers.dividemix import DivideMixClassifier
    from noisefilter.trainers.elr import ELRClassifier
    from noisefilter.trainers.gce import GCEClassifier
    from noisefilter.trainers.inn_dividemix import INNDivideMixClassifier
    from noisefilter.trainers.jocor import JoCoRClassifier
    from noisefilter.trainers.josrc import JoSRCClassifier
    from noisefilter.trainers.m_correction import MCorrectionClassifier
    from noisefilter.trainers.pencil import PENCILClassifier
    from noisefilter.trainers.scanmix import ScanMixClassifier
    from noisefilter.trainers.unicon import UNICONClassifier
    from noisefilter.trainers.vrlvmix import VRLVMixClassifier
    from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Signals, Verdict
    from noisefilter.voting import VoteFilter

__version__ = "0.1.0"

_HOME = {
    "CLEAN": "verdict",
    "ConfidencePenaltyLoss": "criteria",
    "ConfidentLearningSelector": "filters.confident_learning",
    "CoTeachingClassifier": "trainers.co_teaching",
    "CoTeachingPlusClassifier": "trainers.co_teaching_plus",
    "DecouplingClassifier": "trainers.decoupling",
    "DivideMixClassifier": "trainers.dividemix",
    "ELRClassifier": "trainers.elr",
    "ELRLoss": "criteria",
    "FilterSampler": "compose",
    "FilteredClassifier": "compose",
    "GCEClassifier": "trainers.gce",
    "GCELoss": "criteria",
    "HardBootstrappingLoss": "criteria",
    "ID_NOISE": "verdict",
    "INNDivideMixClassifier": "trainers.inn_dividemix",
    "INNScorer": "filters.inn",
    "IndexedDataset": "criteria",
    "JoCoRClassifier": "trainers.jocor",
    "JoSRCClassifier": "trainers.josrc",
    "JoSRCSelector": "filters.josrc",
    "LossVariationSelector": "filters.loss_variation",
    "MCorrectionClassifier": "trainers.m_correction",
    "Net": "net",
    "OOD_NOISE": "verdict",
    "PENCILClassifier": "trainers.pencil",
    "SCANClusterer": "selfsupervised",
    "ScanMixClassifier": "trainers.scanmix",
    "ScoreHistogramDisplay": "displays",
    "Signals": "verdict",
    "SimCLR": "selfsupervised",
    "SmallLossSelector": "filters.small_loss",
    "SoftBootstrappingLoss": "criteria",
    "SymmetricCELoss": "criteria",
    "TransitionMatrixDisplay": "displays",
    "UNICONClassifier": "trainers.unicon",
    "VRLVMixClassifier": "trainers.vrlvmix",
    "Verdict": "verdict",
    "VoteFilter": "voting",
    "judge": "judging",
    "load": "persistence",
    "plant_noise": "noise",
    "save": "persistence",
}

__all__ = [
    "CLEAN",
    "ID_NOISE",
    "OOD_NOISE",
    "CoTeachingClassifier",
    "CoTeachingPlusClassifier",
    "ConfidencePenaltyLoss",
    "ConfidentLearningSelector",
    "DecouplingClassifier",
    "DivideMixClassifier",
    "ELRClassifier",
    "ELRLoss",
    "FilterSampler",
    "FilteredClassifier",
    "GCEClassifier",
    "GCELoss",
    "HardBootstrappingLoss",
    "INNDivideMixClassifier",
    "INNScorer",
    "IndexedDataset",
    "JoCoRClassifier",
    "JoSRCClassifier",
    "JoSRCSelector",
    "LossVariationSelector",
    "MCorrectionClassifier",
    "Net",
    "PENCILClassifier",
    "SCANClusterer",
    "ScanMixClassifier",
    "ScoreHistogramDisplay",
    "Signals",
    "SimCLR",
    "SmallLossSelector",
    "SoftBootstrappingLoss",
    "SymmetricCELoss",
    "TransitionMatrixDisplay",
    "UNICONClassifier",
    "VRLVMixClassifier",
    "Verdict",
    "VoteFilter",
    "judge",
    "load",
    "plant_noise",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'noisefilter' has no attribute {name!r}")
    return getattr(import_module(f"noisefilter.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
