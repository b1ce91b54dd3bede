"""Put the committed results into README.md, benchmarks/README.md, pages of the docs and pictures.

    python benchmarks/render.py            # write
    python benchmarks/render.py --check    # exit 1 if pages or pictures do not say what the results say

Every number on those pages, between their markers, comes from here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import audit
import confident
import epoch
import estimator_checks
import faults
import filters
import fuzz
import growth
import memory
import numpy as np
import openset
import papers
import plots
import pretrain
import tables
import throughput
import training
import variation

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PAGES = (HERE.parent / "README.md", HERE / "README.md", DOCS / "promises.md", DOCS / "choosing.md")


def load(name: str) -> Any:
    """Read a result file, ``None`` where it has not been measured."""
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def audit_short() -> str:
    """INNScorer and cleanlab in a picture, and what they cost."""
    says = "F1 of the flagged rows by INNScorer and by cleanlab for nine kinds of noise on two data sets"
    clean = [cell for cell in audit.done() if cell["rate"] == 0]
    shares = {
        method: [
            float(np.mean([c["flagged"] for c in clean if (c["method"], c["data"]) == (method, data)]))
            for data in audit.DATA
        ]
        for method in ("inn", "cleanlab")
    }
    ours, theirs = (" and ".join(f"{100 * share:.1f}" for share in each) for each in shares.values())
    none = f"Without noise INNScorer flags {ours} % of the rows, cleanlab {theirs} %."
    return f"![{says}](docs/images/beside-cleanlab.svg)\n\n{none} {audit.costs()}"


def speed() -> str:
    """Training and scoring times."""
    found = load("speed")
    cnn, mlp, scoring = found["training_cnn"], found["training_mlp"], found["scoring"]
    return (
        f"- An epoch of `Net` over {cnn['rows']:,} CIFAR images takes {cnn['net_over_bare']:.2f} times a "
        f"bare loop with the small CNN ({cnn['net_recording_over_bare']:.2f} while recording), "
        f"{cnn['rows'] * cnn['epochs'] / cnn['net_seconds']:,.0f} images a second.\n"
        f"- With 64 hidden units on 32 columns it takes {mlp['net_over_bare']:.2f} times a bare loop; "
        f"skorch's own takes {mlp['skorch_over_bare']:.1f} times.\n"
        f"- The default INN score of {scoring['rows']:,} images is {scoring['literal_over_ours']:.0f} times "
        f"faster than the literal loop of L (H + 1) evaluations a row ({scoring['ours_seconds']:.1f} against "
        f"{scoring['literal_seconds']:.0f} seconds), AUC {scoring['auc_ours']:.4f} against "
        f"{scoring['auc_literal']:.4f}.\n\n{machine(found['machine'])}"
    )


def memorizing() -> str:
    """AUC while a network memorizes."""
    found = load("memorizing")
    lines = [
        "| noise | epochs | memorized | AUC small loss | AUC INN (paper) | epochs of the default | AUC | F1 "
        "| wrong | estimated |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in found["cells"]:
        columns = [f"{c['noise']} {c['rate']:g}", str(c["epochs"]), f"{c['memorized']:.0%}"]
        columns += [f"{c[name]:.3f}" for name in ("auc_small_loss", "auc_inn")] + [str(c["epochs_default"])]
        columns += [f"{c[name]:.3f}" for name in ("auc_default", "f1_default", "true_rate", "estimated_rate")]
        lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines) + f"\n\n{machine(found['machine'])}"


def pipeline() -> str:
    """What a filter gains in a Pipeline."""
    found = load("pipeline")
    m = found["mean"]
    return (
        "| digits, 40 % symmetric noise, mean of 3 seeds "
        "| noisy labels | rows replaced | rows dropped | true labels |\n"
        "|---|---|---|---|---|\n"
        f"| logistic regression, test accuracy | {m['logistic_noisy']:.3f} | {m['logistic_replaced']:.3f} | "
        f"{m['logistic_dropped']:.3f} | {m['logistic_true']:.3f} |\n"
        f"| random forest, test accuracy | | {m['forest_replaced']:.3f} | {m['forest_dropped']:.3f} | |\n"
        f"| random forest, out-of-bag estimate of it | | {m['forest_replaced_out_of_bag']:.3f} | "
        f"{m['forest_dropped_out_of_bag']:.3f} | |"
    )


def machine(record: dict[str, Any]) -> str:
    """Name machine and versions in one line."""
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    threads = "1 thread" if record["threads"] == 1 else f"{record['threads']} threads"
    return f"Measured on {record['machine']}, {threads}; {versions}; commit {record['commit']}."


def every(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the newest record with the versions of all."""
    names = dict.fromkeys(name for r in reversed(records) for name in r["versions"])
    versions = {
        k: " and ".join(sorted({str(r["versions"][k]) for r in records if k in r["versions"]})) for k in names
    }
    return records[-1] | {"versions": versions, "commit": "in each record"}


def audit_full() -> str:
    """All columns of the audit benchmark."""
    cells = audit.done()
    note = "Each record names the commit it was trained at and, where the decision is younger, judged at."
    where = machine(every(cells))
    return "\n\n".join([audit.table(), audit.costs(), audit.coverage(), f"{where} {note}"])


def report() -> str:
    """The command line at full size."""
    found = load("report")
    table, photos, rows, pictures = (found[name] for name in ("embedding", "photos", "rows", "thumbnails"))
    opened = max(rows["open_seconds"])
    return (
        "| what | result |\n|---|---|\n"
        f"| `noisefilter audit`, 50,000 rows x 512 columns | {table['seconds']:.0f} seconds, "
        f"{table['peak_mib']:,} MiB, page {table['page_mb']} MB; AUC {table['auc']:.3f} |\n"
        f"| the same, 10,000 photos of 32 to 512 pixels | {photos['seconds']:.0f} seconds, "
        f"{photos['peak_mib']:,} MiB, page {photos['page_mb']} MB; AUC {photos['auc']:.3f} |\n"
        f"| opening a page of {rows['suspicious']:,} suspicious rows in Chromium | at most {opened:.2f} "
        f"seconds of five times, page {rows['page_mb']} MB |\n"
        f"| a page with {pictures['pictures']:,} grainy pictures of 128 x 128 | {pictures['page_mb']} MB, "
        f"written in {pictures['seconds']:.0f} seconds |\n\n{machine(photos)}"
    )


def every_filter() -> str:
    """All filters on the same rows."""
    return resumed(filters)


def resumed(module: Any) -> str:
    """Tables of a benchmark that goes on where it was."""
    records = module.done()
    if not records:
        return "Not measured yet."
    return f"{module.tables()}\n\n{machine(every(records))}"


def open_set() -> str:
    """Strangers in CIFAR-100."""
    return resumed(openset)


def trainers() -> str:
    """Trainers beside plain training."""
    return resumed(training)


def trainers_that_memorize() -> str:
    """Trainers beside plain training where it memorizes, at a glance."""
    return training.overview("memorizing")


def trainers_in_a_hurry() -> str:
    """Trainers beside plain training in few epochs, at a glance."""
    return training.overview("short")


def loss_variation() -> str:
    """Loss variation beside the loss."""
    return resumed(variation)


def without_labels() -> str:
    """SimCLR and SCAN."""
    return resumed(pretrain)


def rows_a_second() -> str:
    """Training and inference beside what the machine can multiply."""
    records = throughput.done()
    if not records:
        return "Not measured yet."
    places = sorted({(r["device"], r["machine"], r["threads"]) for r in records})
    groups = [[r for r in records if (r["device"], r["machine"], r["threads"]) == place] for place in places]
    return "\n\n".join([throughput.tables(), *(machine(every(group)) for group in groups)])


def papers_tables() -> str:
    """Tables of the three papers at full size."""
    records = papers.done()
    return papers.tables() + (f"\n\n{machine(every(records))}" if records else "")


def given_probabilities() -> str:
    """Confident learning beside cleanlab, on probabilities that are there."""
    return resumed(confident)


def growing() -> str:
    """Time and memory against rows and classes."""
    return resumed(growth)


def laws_of_scikit_learn() -> str:
    """Passed and failed checks of every public class and of peers."""
    records = estimator_checks.done()
    if not records:
        return "Not measured yet."
    return f"{estimator_checks.table()}\n\n{machine(every(records))}"


def laws_of_scikit_learn_short() -> str:
    """Passed and failed checks, in one sentence."""
    return estimator_checks.sentence()


def on_disk() -> str:
    """Memory for rows that lie on disk."""
    return resumed(memory)


def struck() -> str:
    """What faults led to."""
    return resumed(faults)


def on_disk_short() -> str:
    """What filters took at most, in one sentence."""
    return memory.sentence()


def struck_short() -> str:
    """How many strikes lost how much, in one sentence for each fault."""
    return faults.sentences()


def any_bytes_short() -> str:
    """How many files were read, in one sentence."""
    return fuzz.sentence()


def any_bytes() -> str:
    """Files of every kind, and what readers made of them."""
    return resumed(fuzz)


def dividemix_epoch() -> str:
    """What an epoch of DivideMix takes."""
    found = load("epoch")
    if found is None:
        return "Not measured yet."
    cells = found["cells"]
    return f"{epoch.table(cells)}\n\n{epoch.passes(cells)}\n\n{machine(found['machine'])}"


def small_tables() -> str:
    """Small tables beside cleanlab."""
    found = load("tables")
    return f"{tables.table(found['cells'])}\n\n{machine(found['machine'])}"


SECTIONS = {
    "audit-short": audit_short, "audit": audit_full, "speed": speed, "memorizing": memorizing,
    "pipeline": pipeline, "tables": small_tables, "report": report, "filters": every_filter,
    "openset": open_set, "variation": loss_variation, "epoch": dividemix_epoch,
    "estimator-checks": laws_of_scikit_learn, "throughput": rows_a_second, "growth": growing,
    "confident": given_probabilities, "memory": on_disk, "faults": struck, "fuzz": any_bytes,
    "estimator-checks-short": laws_of_scikit_learn_short,
    "memory-short": on_disk_short, "faults-short": struck_short, "fuzz-short": any_bytes_short,
    "pretrain": without_labels, "training": trainers, "training-memorizing": trainers_that_memorize,
    "training-short": trainers_in_a_hurry, "filters-short": filters.overview, "papers": papers_tables,
}  # fmt: skip


def filled(text: str) -> str:
    """Fill every section that a page has markers for."""
    for name, render in SECTIONS.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start in text:
            block = f"{start}\n\n{render()}\n\n{end}"
            before, rest = text.split(start)
            text = before + block + rest.split(end)[1]
    return text


def main() -> None:
    """Write or check the pages."""
    stale = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    if "--check" in sys.argv:
        names = [page.name for page in stale] + plots.stale()
        sys.exit(f"stale: {', '.join(names)}" if names else 0)
    for page in stale:
        page.write_text(filled(page.read_text()))
    for name in plots.stale():
        plots.draw(name)


if __name__ == "__main__":
    main()
