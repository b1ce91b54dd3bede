"""
Hugging Face's Trainer
======================

``Trainer`` shuffles, accumulates and distributes on its own; what a filter needs is a number for each row and
one method that writes down what the model said of it. Needs ``pip install transformers accelerate``. The
model and the sentences here are tiny and made up, so that nothing is downloaded; yours take their place.
"""

import numpy as np
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import set_seed

from noisefilter import Signals, SmallLossSelector, plant_noise
from noisefilter.splits import plant_probes

# %%
# Sentences of ten words, most of them from the vocabulary of their topic. One label in ten is made wrong.

rng = np.random.default_rng(0)
truth = np.repeat([0, 1, 2], 200)
own = rng.random((600, 10)) < 0.6
words = np.where(
    own, 1 + 20 * truth[:, None] + rng.integers(20, size=(600, 10)), rng.integers(1, 61, (600, 10))
)
y, planted = plant_noise(truth, "symmetric_excluding", 0.1, random_state=0)
probe_rows, probe_codes = plant_probes(
    y, 3, 0.1, rng
)  # wrong by our own hand: they show how wrong labels look
trained = y.copy()
trained[probe_rows] = probe_codes
dataset = [{"input_ids": words[i], "labels": int(trained[i]), "row": i} for i in range(len(y))]

# %%
# The record: a new line each epoch, filled by ``compute_loss`` as the batches come.


class Record(TrainerCallback):
    """Losses (E, n) and probabilities (E, n, K) of the training itself."""

    def __init__(self, n_samples, n_classes):
        self.losses, self.probs, self.shape = [], [], (n_samples, n_classes)

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Start a new line."""
        self.losses.append(np.full(self.shape[0], np.nan))
        self.probs.append(np.full(self.shape, np.nan))


class RecordingTrainer(Trainer):
    """A Trainer that tells its record what the model said."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        """Leave the loss to the Trainer, and write down that of each row."""
        rows, labels = inputs.pop("row").cpu().numpy(), inputs["labels"]
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if model.training:  # an evaluation comes through here too
            logits = outputs.logits.detach().float()
            record.losses[-1][rows] = functional.cross_entropy(logits, labels, reduction="none").cpu()
            record.probs[-1][rows] = logits.softmax(1).cpu()
        return (loss, outputs) if return_outputs else loss


# %%
# ``remove_unused_columns=False`` lets the row numbers through. A last batch that is dropped would leave rows
# without a record.

set_seed(0)
config = BertConfig(
    vocab_size=61,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    num_labels=3,
)
arguments = TrainingArguments(
    output_dir="trained", num_train_epochs=12, per_device_train_batch_size=32, learning_rate=2e-3, seed=0,
    remove_unused_columns=False, save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=1000,
)  # fmt: skip
record = Record(len(y), 3)
trainer = RecordingTrainer(
    BertForSequenceClassification(config), arguments, train_dataset=dataset, callbacks=[record]
)
trainer.train()

# %%
# Judge. With text labels the columns have to stand in the order of the sorted names.

signals = Signals(
    losses=np.stack(record.losses),
    mean_probs=np.mean(record.probs[len(record.probs) // 2 :], axis=0),
    probe_rows=probe_rows,
    probe_codes=probe_codes,
)
verdict = SmallLossSelector().fit_signals(signals, y).verdict_
flagged = ~verdict.clean_mask
print(f"{verdict}; {(flagged & planted.mask).sum()} of {planted.mask.sum()} wrong labels found.")
print("Most suspicious:", np.argsort(verdict.scores)[:10])
