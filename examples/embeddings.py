"""
Wrong labels of an embedding
============================

What another model made of texts, photos or sounds is an array ``(n, d)``, and the easiest thing to judge.

Without a file, scikit-learn's digits stand in, as a layer of 512 random units sees them::

    python examples/embeddings.py --embeddings FILE.npz    # two minutes for 50,000 rows of 512 columns
    python examples/embeddings.py --quick                  # seconds on two cores
"""

import argparse
from time import perf_counter

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.preprocessing import StandardScaler, normalize

from noisefilter import FilteredClassifier, INNScorer, judge, plant_noise
from noisefilter.datasets import load
from noisefilter.metrics import clean_auc, precision_recall_f1

parser = argparse.ArgumentParser(description="Filter an embedding, and train on what is left.")
parser.add_argument("--embeddings", metavar="FILE", help="an .npz file with arrays X (n, d) and y (n,)")
parser.add_argument("--quick", action="store_true", help="at most 5,000 rows, and 10 epochs")
arguments = parser.parse_args()

# %%
# Rows are put on the unit sphere, as is usual for embeddings.

source = load(arguments.embeddings or "digits")
X, labels = source.X, source.y
rng = np.random.default_rng(0)
if not arguments.embeddings:
    print("Data: scikit-learn's digits behind a layer of random units, in the place of an embedding.")
    pixels = StandardScaler().fit_transform(X.reshape(len(X), -1))
    X = np.maximum(0, pixels @ rng.standard_normal((64, 512)))
if arguments.quick:
    rows = rng.permutation(len(X))[:5000]
    X, labels = X[rows], labels[rows]
X = normalize(X)

# %%
# Forty in a hundred training labels are drawn anew by lot; those of the test rows stay right.

X, X_test, truth, y_test = train_test_split(X, labels, stratify=labels, random_state=0)
y, planted = plant_noise(truth, "symmetric", 0.4, random_state=0)
print(f"{X.shape[0]:,} rows of {X.shape[1]} columns, {planted.mask.sum():,} labels made wrong on purpose.")

# %%
# Two ways to judge them. ``FilteredClassifier`` trains a small network for the filter, drops the rows that
# look wrong, and fits a linear model to the rest. ``judge`` needs no network: it reads what linear models say
# of the rows that they were not fitted to.

linear = LogisticRegression(C=10, max_iter=1000)
start = perf_counter()
scorer = INNScorer(max_epochs=10 if arguments.quick else None, verbose=1, random_state=0)
model = FilteredClassifier(scorer, linear, mode="drop").fit(X, y)
print(f"INNScorer, and a linear model: {perf_counter() - start:.0f} seconds.")

start = perf_counter()
judged = judge(cross_val_predict(linear, X, y, cv=3, method="predict_proba"), y)
print(f"Three linear models, and judge: {perf_counter() - start:.0f} seconds.")

# %%
# How right are they?

for name, verdict in {"INNScorer": model.verdict_, "judge": judged}.items():
    precision, recall, _ = precision_recall_f1(~verdict.clean_mask, planted.mask)
    auc = clean_auc(verdict.scores, planted.mask)
    print(f"Wrong labels found by {name}: precision {precision:.2f}, recall {recall:.2f}, AUC {auc:.3f}.")

# %%
# What was gained?

kept = judged.clean_mask
print("Accuracy on test rows with right labels:")
print(f"noisy labels             {linear.fit(X, y).score(X_test, y_test):.3f}")
print(f"filtered by INNScorer    {model.score(X_test, y_test):.3f}")
print(f"filtered by judge        {linear.fit(X[kept], y[kept]).score(X_test, y_test):.3f}")
print(f"right labels             {linear.fit(X, truth).score(X_test, y_test):.3f}")
