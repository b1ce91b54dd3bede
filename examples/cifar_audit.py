"""
Which labels of CIFAR-10 look wrong?
====================================

One label in ten is made wrong on purpose, so that we can count how many of them are found::

    python examples/cifar_audit.py --data ROOT     # torchvision's folder, or an .npz file with X and y
    python examples/cifar_audit.py --quick         # under two minutes on two cores

``torchvision.datasets.CIFAR10(ROOT, download=True)`` fetches the data. Without ``--data`` the digits of
scikit-learn stand in, enlarged to the size of CIFAR's images.
"""

import argparse
from importlib.util import find_spec

import numpy as np

from noisefilter import INNScorer, plant_noise
from noisefilter.datasets import load

parser = argparse.ArgumentParser(description="Find planted wrong labels in CIFAR-10.")
parser.add_argument("--data", help="torchvision's CIFAR folder, or an .npz file with X and y")
parser.add_argument("--quick", action="store_true", help="5,000 images and 20 epochs")
arguments = parser.parse_args()

# %%
# Images and the labels that we take for true.

if arguments.data:
    source = load(arguments.data)
    X, truth = source.X, source.y
else:
    print("No --data was given: these are scikit-learn's digits, enlarged to 32 x 32, not CIFAR-10.")
    source = load("digits")
    X, truth = source.X.repeat(4, axis=1).repeat(4, axis=2), source.y
if arguments.quick:
    X, truth = X[:5000], truth[:5000]

# %%
# Plant the noise and look for it. The filter sees nothing but ``X`` and ``y``.

y, planted = plant_noise(truth, "symmetric_excluding", 0.1, random_state=0)
scorer = INNScorer(max_epochs=20 if arguments.quick else 30, random_state=0, verbose=1)
verdict = scorer.fit(X, y).verdict_

# %%
# How right was it?

flagged = ~verdict.clean_mask
hits = flagged & planted.mask
print(f"{len(y):,} images, {planted.mask.sum()} labels made wrong on purpose.")
print(f"{flagged.sum()} labels flagged, {hits.sum()} of them rightly.")
print(f"Estimated noise rate {verdict.estimated_noise_rate:.1%}, true rate {planted.rate:.1%}.")

# %%
# The most suspicious rows, lowest score first.

suspects = np.argsort(verdict.scores)[:20]
for row in suspects[:10]:
    given, suggested = verdict.labels[row], verdict.suggested_labels[row]
    print(f"row {row}: labeled {given}, looks like {suggested}, is {truth[row]}")

if find_spec("matplotlib"):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 5, figsize=(9, 8), layout="constrained")
    for axis, row in zip(axes.flat, suspects, strict=True):
        axis.imshow(X[row], cmap="gray_r")
        axis.set_title(f"{verdict.labels[row]} → {verdict.suggested_labels[row]}")
        axis.set_axis_off()
    plt.show()
