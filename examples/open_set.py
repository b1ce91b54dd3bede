"""
Wrong labels, and images that belong to no class
================================================

The last fifth of the classes is given up: their images stay, as strangers, under labels of the other classes
drawn by lot. Of the labels of the others one in five is made wrong. ``JoSRCSelector`` tells the two apart.

Without ``--data`` the digits of scikit-learn stand in; 8 and 9 are strangers::

    python examples/open_set.py --data SOURCE    # a folder of photos, CIFAR, an .npz file
    python examples/open_set.py --quick          # seconds on two cores
"""

import argparse
from importlib.util import find_spec

import numpy as np
from sklearn.metrics import classification_report, confusion_matrix

from noisefilter import CLEAN, ID_NOISE, OOD_NOISE, JoSRCSelector, plant_noise
from noisefilter.datasets import load

parser = argparse.ArgumentParser(description="Tell wrong labels from images of no class.")
parser.add_argument("--data", help="images: torchvision's CIFAR folder, a folder of photos, an .npz file")
parser.add_argument("--quick", action="store_true", help="at most 5,000 images, and 10 epochs")
arguments = parser.parse_args()

# %%
# Images, and noise of both kinds. What was planted is noted as verdicts note it: 0, 1 or 2 for every row.

source = load(arguments.data or "digits")
print(f"Data: {source.description}{'' if arguments.data else ', in the place of photos'}.")
if arguments.quick:
    source = source.take(np.random.default_rng(0).permutation(len(source))[:5000])
X, truth = source.X, source.y
y, planted = plant_noise(truth, "open_set", 0.2, random_state=0)
partition = np.select([planted.ood_mask, planted.mask], [OOD_NOISE, ID_NOISE], default=CLEAN)

# %%
# The filter is not told that there are strangers, nor how many.

selector = JoSRCSelector(max_epochs=10 if arguments.quick else None, verbose=1, random_state=0)
verdict = selector.fit(X, y).verdict_
print(verdict)

# %%
# How right are the three masks? Lines are what was planted, columns what was found. Digits are easy: a short
# training on photos rejects too many, and takes most strangers for wrong labels.

names = ["clean", "wrong label", "stranger"]
for name, counts in zip(names, confusion_matrix(partition, verdict.partition), strict=True):
    print(f"{name:>12}{counts[0]:8,}{counts[1]:8,}{counts[2]:8,}")
print(classification_report(partition, verdict.partition, target_names=names))

# %%
# Wrong labels get a suggestion. Strangers get none: whatever their label, it would be wrong.

right = verdict.suggested_labels == truth
share = right[verdict.id_mask & (partition == ID_NOISE)].mean()
print(f"{share:.1%} of the suggestions for wrong labels are right.")

# %%
# Some of the strangers found: the label they were given, and the class that was given up.

if find_spec("matplotlib"):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 5, figsize=(9, 4), layout="constrained")
    for axis, row in zip(axes.flat, np.flatnonzero(verdict.ood_mask), strict=False):
        axis.imshow(source.store.picture(source.rows[row]), cmap="gray")
        axis.set_title(f"{y[row]}, is {truth[row]}")
    for axis in axes.flat:
        axis.set_axis_off()
    plt.show()
