"""
A linear model on what the filter's network sees
================================================

``INNScorer(output="features")`` hands on the features of its network instead of the images, with rows that
look wrong replaced by clean ones of the same label. So one Pipeline goes from images to a linear model.

Without ``--data`` the digits of scikit-learn stand in::

    python examples/features_pipeline.py --data SOURCE    # a folder of photos, CIFAR, an .npz file
    python examples/features_pipeline.py --quick          # seconds on two cores
"""

import argparse

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from noisefilter import INNScorer, plant_noise
from noisefilter.datasets import load
from noisefilter.metrics import precision_recall_f1

parser = argparse.ArgumentParser(description="A filter and a linear model in one Pipeline.")
parser.add_argument("--data", help="images: torchvision's CIFAR folder, a folder of photos, an .npz file")
parser.add_argument("--quick", action="store_true", help="at most 5,000 images, and 10 epochs")
arguments = parser.parse_args()

# %%
# Forty in a hundred training labels are drawn anew by lot; those of the test images stay right.

source = load(arguments.data or "digits")
print(f"Data: {source.description}{'' if arguments.data else ', in the place of photos'}.")
if arguments.quick:
    source = source.take(np.random.default_rng(0).permutation(len(source))[:5000])
X, X_test, truth, y_test = train_test_split(source.X, source.y, stratify=source.y, random_state=0)
y, planted = plant_noise(truth, "symmetric", 0.4, random_state=0)

# %%
# The Pipeline. In training, the linear model sees features of rows judged clean; in prediction, of every row.

scorer = INNScorer(output="features", max_epochs=10 if arguments.quick else None, verbose=1, random_state=0)
pipeline = make_pipeline(scorer, StandardScaler(), LogisticRegression(max_iter=1000))
pipeline.fit(X, y)

# %%
# How right was the filter?

precision, recall, _ = precision_recall_f1(~scorer.clean_mask_, planted.mask)
print(f"{len(y):,} images to learn from, {planted.rate:.1%} of the labels made wrong on purpose.")
print(f"Wrong labels found: precision {precision:.2f}, recall {recall:.2f}.")

# %%
# What was gained? Without the filter the same linear model learns from the same features, under noisy labels.
# Features of a short training tell the classes of photos badly apart: then right labels help little, too.

linear = clone(pipeline[1:])
features, features_test = scorer.transform(X), scorer.transform(X_test)
print("Accuracy on test images with right labels:")
print(f"noisy labels       {linear.fit(features, y).score(features_test, y_test):.3f}")
print(f"filtered labels    {pipeline.score(X_test, y_test):.3f}")
print(f"right labels       {linear.fit(features, truth).score(features_test, y_test):.3f}")
