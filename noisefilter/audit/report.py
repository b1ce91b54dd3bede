"""The page of an audit: one HTML file that needs nothing else and sends nothing anywhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from noisefilter import __version__
from noisefilter.audit.decisions import Decision, class_of
from noisefilter.audit.figures import histogram_svg, transition_svg
from noisefilter.audit.tables import summarize
from noisefilter.audit.terminal import printable
from noisefilter.audit.unusual import unusual_cells
from noisefilter.datasets import Source, Store
from noisefilter.errors import InputError
from noisefilter.metrics import clean_auc, precision_recall_f1
from noisefilter.verdict import Verdict

__all__ = ["Report", "page_data", "percent", "write_page", "write_report"]

CONFUSIONS_SHOWN = 12
NEXT_ROWS = 50  # rows judged clean with the lowest scores: what the threshold just let through
THUMBNAIL_SIDE = 128  # pixels
LOSSLESS_SIDE = 32  # up to here a picture is shown magnified, where losses would be seen
WEBP_QUALITY = 80


@dataclass(frozen=True)
class Report:
    """What the page tells.

    Parameters
    ----------
    source : Source
        The rows that were judged, with their store; ``truth`` where it is known.
    verdict : Verdict
        The judgement of these rows, in their order.
    command : str
        The command line that made the audit, quoted for a shell.
    settings : mapping of str to str
        Shown under "How this was made": method, seed, seconds, versions, date.
    decisions : sequence of Decision, default=()
        Earlier ones. They are shown as decided, and saved again together with the new ones.
    thumbnails : int, default=2000
        So many of the most suspicious rows get a picture.
    apply_command : str
        What to run with the saved decisions, quoted for a shell.
    """

    source: Source
    verdict: Verdict
    command: str
    settings: Mapping[str, str]
    decisions: Sequence[Decision] = ()
    thumbnails: int = 2000
    apply_command: str = "noisefilter apply decisions.json SOURCE --out corrected"

    @property
    def store(self) -> Store:
        """Where the rows lie."""
        if self.source.store is None:
            raise InputError("source of a report must have a store, got none.")
        return self.source.store

    @cached_property
    def store_rows(self) -> list[int]:
        """The number in the store of each row that was judged."""
        rows: list[int] = np.asarray(self.source.rows).tolist()
        return rows


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.html``.

    Parameters
    ----------
    folder : Path
        Where to write.
    report : Report
        What to tell.
    """
    write_page(folder / "report.html", "audit/template.html.jinja", page_data(report))


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Write a page of a template that is that of an audit, or extends it.

    Parameters
    ----------
    path : Path
        The file.
    template : str
        A file below the package, with ``/``.
    values : mapping
        What the template names: those of `page_data`, and more.
    """
    css, js, theme = (_resource(f"audit/{name}") for name in ("page.css", "page.js", "theme.js"))
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource), autoescape=True, undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )  # fmt: skip
    environment.trim_blocks = environment.lstrip_blocks = True
    html = environment.get_template(template).render(
        **values,
        css=Markup(css),
        js=Markup(js),
        theme=Markup(theme),
        hashes=Markup(f"{_csp_hash(theme)} {_csp_hash(js)}"),
    )
    path.write_text(html + "\n", encoding="utf-8", newline="\n")


def _resource(name: str) -> str:
    """Return a text file that comes with the package."""
    return files("noisefilter").joinpath(*name.split("/")).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """Spell out control and format characters in everything that is not markup of our own."""
    return value if isinstance(value, Markup) else printable(str(value))


def _csp_hash(script: str) -> str:
    """Name a script in the content security policy, so that no other one runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def page_data(report: Report) -> dict[str, Any]:
    """Gather everything the template shows, as plain values.

    Returns
    -------
    dict
        What ``template.html.jinja`` names. ``review`` is the JSON of the gallery.
    """
    source, verdict = report.source, report.verdict
    facts = summarize(verdict, n_confusions=CONFUSIONS_SHOWN)
    numbers = _label_numbers(report)
    return {
        "description": source.description,
        "headline": _headline(verdict),
        "cards": _cards(report),
        "truth_cards": [] if source.truth is None else _truth_cards(verdict, verdict.labels != source.truth),
        "histogram": Markup(histogram_svg(verdict, source.truth)),
        "open_set": verdict.open_set,
        "has_threshold": verdict.threshold is not None,
        "transition": Markup("" if verdict.transition_matrix is None else transition_svg(verdict)),
        "uneven": _is_uneven(verdict.transition_matrix),
        "classes": _class_rows(verdict, facts["classes"]),
        "confusions": [
            {
                "given": str(given),
                "suggested": str(suggested),
                "rows": rows,
                "numbers": (numbers[str(given)], numbers[str(suggested)]),
            }
            for given, suggested, rows in facts["confusions"]
        ],
        "n_rows": len(verdict),
        "n_flagged": facts["flagged"],
        "kind": source.kind,
        "review": Markup(_json(_review(report, numbers))),
        "apply_command": report.apply_command,
        "command": report.command,
        "settings": dict(report.settings),
        "left_out": list(source.left_out),
        "preparation": list(source.preparation),
        "method": verdict.method,
        "version": __version__,
    }


def _is_uneven(matrix: NDArray[np.float64] | None) -> bool:
    """Say whether some pair of classes is mixed up much more than the average one."""
    if matrix is None:
        return False
    pairs = matrix[~np.eye(len(matrix), dtype=bool)]
    return bool(pairs.max() > 1.5 * pairs.mean())


def _json(value: Any) -> str:
    """JSON that can stand inside a script element: pure ASCII, so that any name survives, and no ``<``."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def percent(share: float) -> str:
    """Return a share as a page shows it."""
    return "< 0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _headline(verdict: Verdict) -> str:
    flagged, rows = int((~verdict.clean_mask).sum()), len(verdict)
    if not flagged:
        return f"None of the {rows:,} labels looks wrong."
    looks = "label looks" if flagged == rows == 1 else "labels look" if flagged > 1 else "labels looks"
    sentence = f"{flagged:,} of {rows:,} {looks} wrong ({percent(flagged / rows)})."
    strangers = int(verdict.ood_mask.sum())
    if strangers:
        sentence += f" {strangers:,} of them {'seem' if strangers > 1 else 'seems'} to belong to no class."
    return sentence


def _cards(report: Report) -> list[dict[str, Any]]:
    """Return the key figures: name, value, and what it means."""
    verdict = report.verdict
    flagged, strangers = int((~verdict.clean_mask).sum()), int(verdict.ood_mask.sum())
    rate, note = "unknown", "this method does not estimate it"
    if math.isfinite(verdict.estimated_noise_rate):
        rate, note = percent(verdict.estimated_noise_rate), "of all labels are wrong"
    if verdict.noise_rate_interval is not None:
        note = "most likely between {:.1%} and {:.1%}".format(*verdict.noise_rate_interval)
    cards: list[dict[str, Any]] = [
        {
            "name": "Labels judged wrong",
            "value": f"{flagged:,}",
            "note": f"{percent(verdict.noise_rate)} of {len(verdict):,} labels",
        },
        {
            "name": "Estimated noise rate",
            "value": rate,
            "note": note,
        },
        {
            "name": "Belong to no class",
            "value": f"{strangers:,}" if verdict.open_set else "–",
            "note": "rows that fit none of the classes" if verdict.open_set else "not looked for",
        },
        {
            "name": "Decided by a person",
            "value": f"{len(report.decisions):,}",
            "note": "so far; see Review",
            "id": "decided-total",
        },
    ]
    if strangers:
        cards[2]["kind"] = "stranger"
    return cards


def _truth_cards(verdict: Verdict, wrong: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return how right the verdict was, where the truth is known."""
    share = percent(float(wrong.mean()))
    cards = [{"name": "Really wrong", "value": f"{wrong.sum():,}", "note": f"{share} of all labels"}]
    if not wrong.any():
        return cards
    precision, recall, _ = precision_recall_f1(~verdict.clean_mask, wrong)
    auc = clean_auc(verdict.scores, wrong)
    return cards + [
        {"name": name, "value": f"{value:.3f}" if math.isfinite(value) else "–", "note": note}
        for name, value, note in (
            ("Precision", precision, "of the labels judged wrong are really wrong"),
            ("Recall", recall, "of the really wrong labels were found"),
            ("AUC", auc, "how well the scores put wrong labels first; 1 is perfect"),
        )
    ]


def _class_rows(verdict: Verdict, classes: list[tuple[Any, int, int]]) -> list[dict[str, Any]]:
    """Return the lines of the class table, the largest share judged wrong first."""
    really: defaultdict[str, Counter[str]] = defaultdict(Counter)
    wrong = verdict.id_mask
    for given, suggested in zip(verdict.labels[wrong], verdict.suggested_labels[wrong], strict=True):
        really[str(given)][str(suggested)] += 1
    shares = [flagged / rows if rows else 0.0 for _, rows, flagged in classes]
    largest = max(shares, default=0.0) or 1.0
    lines = []
    for (label, rows, flagged), share in zip(classes, shares, strict=True):
        often, times = next(iter(really[str(label)].most_common(1)), ("", 0))
        line = {"label": str(label), "rows": rows, "flagged": flagged, "really": often, "times": times}
        lines.append(
            line | {"share": share, "percent": percent(share), "bar": f"{100 * share / largest:.1f}%"}
        )
    return sorted(lines, key=lambda line: -line["share"])


def _label_numbers(report: Report) -> dict[str, int]:
    """Return a number for each label a row can get: the classes in order, then what else there is."""
    texts = [*map(str, report.verdict.classes), *class_of(report.store.labels)]
    return {text: number for number, text in enumerate(dict.fromkeys(texts))}


def _review(report: Report, numbers: dict[str, int]) -> dict[str, Any]:
    """Gather the gallery: the rows to look at, the labels to choose from, and the decisions so far."""
    store = report.store
    choices = len(numbers)  # rows may add others below, which are shown but cannot be chosen
    rows = _gallery_rows(report)
    items = [_item(report, position, kind, numbers) for position, kind in rows]
    if report.source.kind == "images":
        _add_pictures(report, items)
    else:
        _add_cells(report, np.array([position for position, _ in rows], dtype=np.intp), items)
    earlier = [asdict(decision) for decision in report.decisions]
    return {
        "fingerprint": store.fingerprint,
        "rows": len(store),
        "description": store.description,
        "labels": list(numbers),
        "choices": choices,
        "items": items,
        "earlier": earlier,
        "started_from": hashlib.sha256(_json(earlier).encode()).hexdigest()[:16],
    }


def _gallery_rows(report: Report) -> list[tuple[int, str]]:
    """Return position and kind of the rows of the gallery, of each kind the lowest score first."""
    verdict = report.verdict
    order = np.argsort(verdict.scores, kind="stable")
    flagged, clean = order[~verdict.clean_mask[order]], order[verdict.clean_mask[order]]
    decided = {decision.row for decision in report.decisions}
    by_hand = np.isin(np.asarray(report.store_rows)[clean], list(decided))
    return [
        *((position, "stranger" if verdict.ood_mask[position] else "wrong") for position in flagged.tolist()),
        *((position, "clean") for position in clean[~by_hand][:NEXT_ROWS].tolist()),
        *((position, "decided") for position in clean[by_hand].tolist()),
    ]


def _item(report: Report, position: int, kind: str, numbers: dict[str, int]) -> dict[str, Any]:
    """Return one row of the gallery; labels by their numbers, what does not exist left out."""
    verdict, store, row = report.verdict, report.store, report.store_rows[position]
    given, stored = str(verdict.labels[position]), str(store.labels[row])
    item: dict[str, Any] = {"row": row, "kind": kind, "score": float(f"{verdict.scores[position]:.4g}")}
    labels = {"given": given}
    if kind != "stranger":
        labels["suggested"] = str(verdict.alternatives[position])
    if report.source.truth is not None:
        labels["truth"] = str(report.source.truth[position])
    if stored != given:  # an earlier decision changed it before it was judged
        labels["stored"] = stored
    if store.names is not None:
        item["name"] = store.names[row]
    return item | {name: numbers.setdefault(label, len(numbers)) for name, label in labels.items()}


def _add_pictures(report: Report, items: list[dict[str, Any]]) -> None:
    first = items[: report.thumbnails]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        pictures = pool.map(_picture, [report.store] * len(first), [item["row"] for item in first])
        for item, picture in zip(first, pictures, strict=True):
            if picture is not None:
                item["picture"] = picture


def _picture(store: Store, row: int) -> tuple[str, int, int] | None:
    """Return a small picture as base64 of WebP, its width and height; None where there is none any more."""
    try:
        picture = store.picture(row)
        if picture is None:
            return None
        picture = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    lossless = max(picture.size) <= LOSSLESS_SIDE
    picture.save(buffer, "WEBP", lossless=lossless, quality=WEBP_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode(), *picture.size


def _add_cells(report: Report, positions: NDArray[np.intp], items: list[dict[str, Any]]) -> None:
    verdict = report.verdict
    frame = report.store.cells(np.asarray(report.store_rows))
    if frame is None:
        return
    cells = unusual_cells(frame, verdict.labels, verdict.clean_mask, positions)
    for item, values in zip(items, cells, strict=True):
        item["cells"] = [[column, text, int(unusual)] for column, text, unusual in values]
