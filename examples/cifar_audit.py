"""
Which labels of CIFAR-10 look wrong?
====================================

One label in ten is made wrong on purpose, so that we can count how many of them are found.

Without ``--data`` the digits of scikit-learn stand in::

    python examples/cifar_audit.py --data ROOT    # torchvision's folder, a folder of photos, an .npz file
    python examples/cifar_audit.py --quick        # under two minutes on two cores

``torchvision.datasets.CIFAR10(ROOT, download=True)`` fetches the data. The command ``noisefilter audit ROOT
--out audit/`` judges the labels as they are, and leaves a page in which suspicious ones can be put right.
"""

import argparse
from importlib.util import find_spec

import numpy as np

from noisefilter import INNScorer, plant_noise
from noisefilter.datasets import load

parser = argparse.ArgumentParser(description="Find planted wrong labels in CIFAR-10.")
parser.add_argument("--data", help="images: torchvision's CIFAR folder, a folder of photos, an .npz file")
parser.add_argument("--quick", action="store_true", help="at most 5,000 images, and 20 epochs")
arguments = parser.parse_args()

# %%
# Images and the labels that we take for true. Folders are sorted by class, so a part of them is drawn by lot.

source = load(arguments.data or "digits")
print(f"Data: {source.description}{'' if arguments.data else ', in the place of CIFAR-10'}.")
if arguments.quick:
    source = source.take(np.random.default_rng(0).permutation(len(source))[:5000])
X, truth = source.X, source.y

# %%
# Plant the noise and look for it. The filter sees nothing but ``X`` and ``y``.

y, planted = plant_noise(truth, "symmetric_excluding", 0.1, random_state=0)
scorer = INNScorer(max_epochs=20 if arguments.quick else None, verbose=1, random_state=0)
verdict = scorer.fit(X, y).verdict_

# %%
# How right was it? Other labels that it flags may be mistakes of the data set itself. A short training also
# suspects photos that are only hard, and estimates too high a rate; the range says how unsure it is.

flagged = ~verdict.clean_mask
low, high = verdict.noise_rate_interval
print(f"{len(y):,} images, {planted.mask.sum():,} labels made wrong on purpose ({planted.rate:.1%}).")
print(f"{flagged.sum():,} labels flagged, {(flagged & planted.mask).sum():,} of them rightly.")
print(f"Estimated noise rate {verdict.estimated_noise_rate:.1%}, between {low:.1%} and {high:.1%}.")

# %%
# The most suspicious images, lowest score first: the label they were given, and the one suggested.

suspects = np.argsort(verdict.scores)[:20]
for row in suspects[:10]:
    given, suggested = verdict.labels[row], verdict.suggested_labels[row]
    print(f"image {source.rows[row]}: labeled {given}, looks like {suggested}, is {truth[row]}")

if find_spec("matplotlib"):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(4, 5, figsize=(9, 8), layout="constrained")
    for axis, row in zip(axes.flat, suspects, strict=True):
        axis.imshow(source.store.picture(source.rows[row]), cmap="gray")
        axis.set_title(f"{verdict.labels[row]} → {verdict.suggested_labels[row]}")
        axis.set_axis_off()
    plt.show()
