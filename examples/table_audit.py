"""
Which labels of a table look wrong?
===================================

The columns of a ``.csv``, ``.tsv`` or ``.parquet`` file become numeric by themselves: numbers are scaled,
texts of few values become a column each, missing cells are normal. One label in five is made wrong.

Without ``--csv`` scikit-learn's table of breast cancers stands in::

    python examples/table_audit.py --csv people.csv --label income
    python examples/table_audit.py --quick    # seconds on two cores

The same on the command line::

    noisefilter noise people.csv --label income --kind symmetric_excluding --rate 0.2 --out noisy.csv
    noisefilter audit noisy.csv --label income --truth noisy.truth.csv --out audit/

and ``noisefilter audit people.csv --label income --out audit/`` looks for the wrong labels that are there.
"""

import argparse
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

from noisefilter import FilteredClassifier, INNScorer, plant_noise
from noisefilter.datasets import load
from noisefilter.metrics import precision_recall_f1

parser = argparse.ArgumentParser(description="Find planted wrong labels in a table.")
parser.add_argument("--csv", metavar="FILE", help="a .csv, .tsv or .parquet file")
parser.add_argument("--label", metavar="COLUMN", help="its column of labels")
parser.add_argument("--quick", action="store_true", help="at most 5,000 rows")
arguments = parser.parse_args()

# %%
# A table of numbers, with one column of categories and a few missing cells.

if arguments.csv:
    source = load(arguments.csv, label=arguments.label)
else:
    cancers = load_breast_cancer(as_frame=True)
    table = cancers.data.assign(diagnosis=cancers.target_names[cancers.target])
    table["mean radius"] = pd.qcut(table["mean radius"], 4, labels=["small", "medium", "large", "huge"])
    table.loc[::20, "mean texture"] = np.nan
    with TemporaryDirectory() as folder:
        table.to_csv(Path(folder, "cancers.csv"), index=False)
        source = load(Path(folder, "cancers.csv"), label="diagnosis")
print(f"Data: {source.description}{'' if arguments.csv else ', in the place of a table of your own'}.")
for preparation, count in Counter(what for _, what in source.preparation).items():
    print(f"{count:4} x {preparation}")
if arguments.quick:
    source = source.take(np.random.default_rng(0).permutation(len(source))[:5000])

# %%
# Training rows, of whose labels one in five is made wrong, and test rows whose labels stay right.

train, test = train_test_split(np.arange(len(source)), test_size=0.3, stratify=source.y, random_state=0)
X, truth, X_test, y_test = source.X[train], source.y[train], source.X[test], source.y[test]
y, planted = plant_noise(truth, "symmetric_excluding", 0.2, random_state=0)

# %%
# A filter before gradient boosting: rows that look wrong are dropped. A few hundred rows are little to go by,
# and another draw of wrong labels gives other numbers; so the estimated rate comes with a wide range.

boosting = HistGradientBoostingClassifier(random_state=0)
model = FilteredClassifier(INNScorer(random_state=0), boosting, mode="drop").fit(X, y)
verdict = model.verdict_
low, high = verdict.noise_rate_interval
precision, recall, _ = precision_recall_f1(~verdict.clean_mask, planted.mask)
print(f"{len(y):,} rows, {planted.mask.sum():,} labels made wrong on purpose ({planted.rate:.1%}).")
print(f"Wrong labels found: precision {precision:.2f}, recall {recall:.2f}.")
print(f"Estimated noise rate {verdict.estimated_noise_rate:.1%}, between {low:.1%} and {high:.1%}.")

# %%
# The most suspicious rows, with some of their cells as they stand in the file.

suspects = np.argsort(verdict.scores)[:5]
shown = verdict.to_frame()[["label", "score", "suggested_label"]].assign(truth=truth).iloc[suspects]
cells = source.store.cells(source.rows[train[suspects]]).iloc[:, :3]
print(shown.reset_index(drop=True).join(cells).to_string(index=False))

# %%
# What was gained?

print("Accuracy on test rows with right labels:")
print(f"noisy labels       {boosting.fit(X, y).score(X_test, y_test):.3f}")
print(f"filtered labels    {model.score(X_test, y_test):.3f}")
print(f"right labels       {boosting.fit(X, truth).score(X_test, y_test):.3f}")
