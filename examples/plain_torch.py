"""
A training loop of your own
===========================

A filter does not have to train. Let your loop write down the loss, the margin and the mean probabilities of
every row, and hand them over by ``fit_signals``: as many filters as you like judge the same training.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from noisefilter import INNScorer, Signals, SmallLossSelector, plant_noise
from noisefilter.splits import plant_probes

X, truth = load_digits(return_X_y=True)
y, planted = plant_noise(truth, "symmetric_excluding", 0.1, random_state=0)  # so that we can count the hits
X, n, K = torch.tensor(X / 16, dtype=torch.float32), len(y), 10

# %%
# A few rows are trained under labels that are wrong by our own hand: they show the filter how wrong labels
# look in this very training. Leave them out, and rates are read less surely from a network that memorizes.

rng = np.random.default_rng(0)
probe_rows, probe_codes = plant_probes(y, K, 0.05, rng)
trained = y.copy()
trained[probe_rows] = probe_codes
target = torch.tensor(trained)

# %%
# The loop, with five lines for the record. Columns of probabilities stand in the order of the sorted classes.

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, K))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
epochs = 30
losses, margins, probs = np.zeros((epochs, n)), np.zeros((epochs, n)), np.zeros((epochs, n, K))
for epoch in range(epochs):
    for rows in torch.randperm(n).split(64):
        logits = model(X[rows])
        loss = functional.cross_entropy(logits, target[rows], reduction="none")
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()

        logits, own = logits.detach(), functional.one_hot(target[rows], K).bool()
        losses[epoch, rows] = loss.detach()
        margins[epoch, rows] = logits[own] - logits.masked_fill(own, -torch.inf).amax(1)
        probs[epoch, rows] = logits.softmax(1)

# %%
# From here on nothing is trained.

signals = Signals(
    losses=losses,
    margins=margins,
    mean_probs=probs[epochs // 2 :].mean(axis=0),
    probe_rows=probe_rows,
    probe_codes=probe_codes,
)
for row_score in ("averaged_margin", "mean_loss"):
    verdict = SmallLossSelector(row_score=row_score).fit_signals(signals, y).verdict_
    flagged = ~verdict.clean_mask
    print(
        f"{row_score}: {verdict}; {(flagged & planted.mask).sum()} of {planted.mask.sum()} wrong labels found"
    )

# %%
# A filter that needs what was not recorded says so.

try:
    INNScorer().fit_signals(signals, y)
except ValueError as error:
    print(error)
