"""
DivideMix that starts from a filter's verdict
=============================================

Behind a filter in a Pipeline, a trainer begins with the labels that the filter believes, and later divides
them anew in every epoch. What is that worth, beside plain training on all labels and on those believed?

Without ``--data`` the digits of scikit-learn stand in::

    python examples/dividemix_inn_start.py --data SOURCE    # a folder of photos, CIFAR, an .npz file
    python examples/dividemix_inn_start.py --quick          # under two minutes on two cores

The full form trains two networks for 60 epochs, three times over: it wants a GPU or patience. The ten epochs
of ``--quick`` do for digits; for 5,000 photos they take minutes, are too few, and plain training is ahead.
"""

import argparse
from importlib.util import find_spec

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline

from noisefilter import DivideMixClassifier, INNScorer, plant_noise
from noisefilter.datasets import load
from noisefilter.metrics import precision_recall_f1

parser = argparse.ArgumentParser(description="INN, then DivideMix, beside plain training.")
parser.add_argument("--data", help="images: torchvision's CIFAR folder, a folder of photos, an .npz file")
parser.add_argument("--quick", action="store_true", help="at most 5,000 images, and 10 epochs")
arguments = parser.parse_args()

# %%
# Forty in a hundred training labels become the next class; those of the test images stay right.

source = load(arguments.data or "digits")
print(f"Data: {source.description}{'' if arguments.data else ', in the place of photos'}.")
if arguments.quick:
    source = source.take(np.random.default_rng(0).permutation(len(source))[:5000])
X, X_test, truth, y_test = train_test_split(source.X, source.y, stratify=source.y, random_state=0)
y, planted = plant_noise(truth, "pair", 0.4, random_state=0)

# %%
# The filter, then the trainer. Test images are for the record only: nothing is chosen by them.

epochs = 10 if arguments.quick else 60
scorer = INNScorer(max_epochs=10 if arguments.quick else None, verbose=1, random_state=0)
trainer = DivideMixClassifier(max_epochs=epochs, verbose=1, random_state=0)
pipeline = Pipeline([("filter", scorer), ("train", trainer)])
pipeline.fit(X, y, train__eval_set=(X_test, y_test))

# %%
# Plain training of the same two networks is a warm-up that never ends: on all labels, and on those believed.

plain = clone(trainer).set_params(warmup_epochs=epochs, probes=0, confidence_penalty=False)
kept = scorer.clean_mask_
trainers = {
    "plain training": clone(plain).fit(X, y, eval_set=(X_test, y_test)),
    "filter, plain training": clone(plain).fit(X[kept], y[kept], eval_set=(X_test, y_test)),
    "filter, DivideMix": trainer,
}

# %%
# What was gained? Accuracy after the last epoch, and the best of all, which only test labels can choose.

print("Accuracy on test images with right labels, last and best:")
for name, fitted in trainers.items():
    print(f"{name:24}{fitted.eval_report_['last']:8.3f}{fitted.eval_report_['best']:8.3f}")
print(f"{len(y):,} images to learn from, {planted.rate:.1%} of the labels made wrong on purpose.")
for name, verdict in {"the filter": scorer.verdict_, "DivideMix": trainer.verdict_}.items():
    precision, recall, _ = precision_recall_f1(~verdict.clean_mask, planted.mask)
    print(f"Wrong labels found by {name}: precision {precision:.2f}, recall {recall:.2f}.")

# %%
# Every epoch leaves a record. Labels are guessed in the phase called mixmatch.

phases = [record["phase"] for record in trainer.history_]
print("Epochs of DivideMix:", ", ".join(f"{phases.count(phase)} {phase}" for phase in dict.fromkeys(phases)))
if find_spec("matplotlib"):
    import matplotlib.pyplot as plt

    for name, fitted in trainers.items():
        accuracies = [record["test_accuracy"] for record in fitted.history_]
        plt.plot(range(1, epochs + 1), accuracies, label=name)
    plt.xlabel("epoch")
    plt.ylabel("test accuracy")
    plt.legend()
    plt.show()
