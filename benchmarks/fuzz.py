"""Whatever a file holds, a reader gives a result or one of the library's errors.

    python benchmarks/fuzz.py --examples 2000    # so many files for each reader, and append the counts
    python benchmarks/fuzz.py --table            # the results as Markdown

hypothesis makes the files. Half of them are whole ones of the kind a reader wants, with bytes replaced,
inserted, removed or repeated at some places; half are put together from what a reader looks for: delimiters,
quotes, line ends, numbers, dates, missing cells, and values of every kind that JSON has. Everything that is
read is also used as far as the command line would use it. A result is fine, and so is an error of
``noisefilter.errors``; anything else ends the run and shows the smallest file that does it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from audit import machine
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

import noisefilter
from noisefilter.audit.decisions import decided, read_decisions
from noisefilter.audit.tables import AUDIT, check_output, output_folder, read_flagged, write_verdict
from noisefilter.audit.truth import read_truth
from noisefilter.checkpoint import Checkpoints
from noisefilter.datasets import Source, load, load_image_folder, load_npz
from noisefilter.datasets.arrays import ArrayStore, read_features
from noisefilter.datasets.folders import FolderStore
from noisefilter.datasets.tables import TableStore
from noisefilter.errors import InputTypeError, NoiseFilterError
from noisefilter.verdict import Verdict

RESULTS = Path(__file__).parent / "results" / "fuzz.jsonl"
LABELS = np.array(["a", "b", "a", "b", "b", "a"])
STORE = ArrayStore(np.arange(12.0).reshape(6, 2), LABELS, "six rows")
IMAGES = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")

# -- files --------------------------------------------------------------------------------------------


@st.composite
def spoiled(draw: Any, whole: bytes) -> bytes:
    """Return a file with something wrong at a few places; now and then with nothing."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)))
        some = draw(
            st.binary(max_size=8) | st.sampled_from((b"\0", b"\xff" * 8, b"\n", b'"', b"<", b"9" * 12))
        )
        kind = draw(st.sampled_from(("replace", "insert", "remove", "repeat", "cut")))
        if kind == "replace":
            content[place : place + len(some)] = some
        elif kind == "insert":
            content[place:place] = some
        elif kind == "remove":
            del content[place : place + draw(st.integers(1, 40))]
        elif kind == "repeat":
            content[place:place] = content[place : place + draw(st.integers(1, 200))]
        else:
            del content[place:]
    return bytes(content)


CELLS = st.one_of(
    st.sampled_from(
        "a b c 0 1 2 3.5 1,5 1e400 -1e308 nan NaN inf None null NA true False 00 007 =1+1 label y".split()
    ),
    st.sampled_from("2024-01-31 9999-12-31 0001-01-01 2024-02-30 2024-01-31T10:00:00+23:59 ٣ \u202e".split()),
    st.sampled_from(("", " ", '"', '""', "a\nb", "a\r\nb", "\ufeff", "\0", "x" * 2000, "\ud800")),
    st.text(max_size=6),
)


@st.composite
def texts(draw: Any) -> bytes:
    """Return a table in some dialect, cells of any kind; mostly with a column of labels, and rows as wide."""
    width, delimiter = draw(st.integers(1, 4)), draw(st.sampled_from(",;\t|:"))
    names = st.lists(CELLS, min_size=width, max_size=width)
    header = draw(names)
    if draw(st.booleans()):
        header = [*(f"c{i}" for i in range(width)), "label"]
    row = st.lists(CELLS, min_size=len(header), max_size=len(header))
    rows = draw(st.lists(row, max_size=8))
    if draw(st.integers(0, 3)):  # a column of classes
        rows = [[*cells[:-1], "ab"[i % 2]] for i, cells in enumerate(rows)]
    file = io.StringIO()
    end = draw(st.sampled_from(("\n", "\r\n", "\r")))
    quoting = draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([header, *rows])
    encoding = draw(st.sampled_from(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")))
    return file.getvalue().encode(encoding, "replace" if encoding != "utf-8" else "surrogatepass")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(("a", "b", "keep", "remove", "relabel", "confirm", 0, 1, 5, -1, 10**30)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def varied(draw: Any, whole: Any) -> Any:
    """Return JSON like a whole one, with values of any kind at some places."""
    if draw(st.integers(0, 7)) == 0:
        return draw(JSON)
    if isinstance(whole, dict):
        return {key: draw(varied(value)) for key, value in whole.items() if draw(st.integers(0, 15))} | draw(
            st.dictionaries(st.text(max_size=3), JSON, max_size=1)
        )
    if isinstance(whole, list):
        return [draw(varied(value)) for value in whole]
    return whole


def of_json(whole: Any) -> Any:
    """Return files of JSON like a whole one, or bytes like its own."""
    text = varied(whole).map(lambda value: json.dumps(value).encode())
    return text | spoiled(json.dumps(whole).encode())


@st.composite
def arrays(draw: Any) -> bytes:
    """Return an ``.npy`` file whose header says anything about what follows."""
    kind = draw(
        st.sampled_from(("<f4", "<f8", "|O", "<U3", "|S2", "<i8", "|b1", "<c8", "<M8[s]", "|V4", ">f4"))
    )
    shape = draw(st.lists(st.sampled_from((0, 1, 2, 3, 6, 10**6, 10**12, -1)), max_size=3))
    extra = draw(st.sampled_from(("", "'x': 1, ", "('" * 60, "[" * 200)))
    told = f"{{'descr': {kind!r}, 'fortran_order': {draw(st.booleans())}, {extra}'shape': {tuple(shape)}, }}"
    header = draw(st.sampled_from((told, told[:-3], "[(" + told, "1" * 5000))).encode().ljust(117) + b"\n"
    version = draw(st.sampled_from((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00")))
    length = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + header + draw(st.binary(max_size=200))


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return archive.getvalue()


def npy(array: Any) -> bytes:
    """Return an array as a file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@cache
def parquet() -> bytes:
    """Return a small table."""
    import pandas as pd

    frame = pd.DataFrame({"u": [1.5, None, 2.0] * 4, "c": list("xyzx") * 3, "label": list("ab") * 6})
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


@cache
def picture(kind: str) -> bytes:
    """Return a small picture."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@cache
def checkpoint() -> bytes:
    """Return a checkpoint."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        Checkpoints(folder, {"lr": 0.1}).save(1, {"x": torch.ones(3)}, {"history": []})
        return (Path(folder) / "epoch-0001.safetensors").read_bytes()


@cache
def audited() -> tuple[bytes, bytes]:
    """Return the table and the marker of an audit of the six rows."""
    verdict = Verdict(
        labels=LABELS, classes=np.array(["a", "b"]), scores=np.linspace(0, 1, 6),
        partition=np.array([1, 1, 2, 0, 0, 0]), alternatives=np.where(LABELS == "a", "b", "a"),
    )  # fmt: skip
    about = {"fingerprint": STORE.fingerprint, "source": "six rows"}
    with tempfile.TemporaryDirectory() as folder:
        with output_folder(Path(folder) / "out", about) as out:
            write_verdict(out, Source(STORE.X, LABELS, None, "table", "six rows", store=STORE), verdict)
        return tuple((Path(folder) / "out" / name).read_bytes() for name in ("verdict.parquet", "audit.json"))  # type: ignore[return-value]


# -- readers ------------------------------------------------------------------------------------------


def table(folder: Path, content: bytes) -> None:
    """Read a text table, show it, write a copy."""
    path = folder / "t.csv"
    path.write_bytes(content)
    store = TableStore(path)
    load(path, skip_unreadable=True)
    rows = np.arange(len(store))
    store.cells(rows)
    store.write(folder / "copy.csv", rows, store.labels)


def parquet_table(folder: Path, content: bytes) -> None:
    """Read a parquet table."""
    (folder / "t.parquet").write_bytes(content)
    load(folder / "t.parquet", skip_unreadable=True)


def npz(folder: Path, content: bytes) -> None:
    """Read an archive of arrays."""
    (folder / "t.npz").write_bytes(content)
    load_npz(folder / "t.npz")


def embedding(folder: Path, content: bytes) -> None:
    """Read an embedding."""
    (folder / "t.npy").write_bytes(content)
    read_features(folder / "t.npy", 6, np.arange(6))


def images(folder: Path, content: bytes) -> None:
    """Read a folder with one file that may be anything, show it."""
    root = folder / "photos"
    if not root.exists():
        for name in ("a/1.png", "b/1.png"):
            (root / name).parent.mkdir(parents=True)
            (root / name).write_bytes(picture("PNG"))
    (root / "a" / "2.png").write_bytes(content)
    load_image_folder(root, image_size=8, skip_unreadable=True)
    FolderStore(root).picture(1)
    load_image_folder(root, image_size=8)


def decisions(folder: Path, content: bytes) -> None:
    """Read what the report page saved, and apply it."""
    (folder / "d.json").write_bytes(content)
    decided(LABELS, read_decisions(folder / "d.json", STORE))


def truth_table(folder: Path, content: bytes) -> None:
    """Read right labels from a text."""
    (folder / "truth.csv").write_bytes(content)
    read_truth(folder / "truth.csv", STORE)


def truth_array(folder: Path, content: bytes) -> None:
    """Read right labels from an array."""
    (folder / "truth.npy").write_bytes(content)
    read_truth(folder / "truth.npy", STORE)


def marker(folder: Path, content: bytes) -> None:
    """Read an audit whose marker may say anything."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    (out / "verdict.parquet").write_bytes(audited()[0])
    (out / AUDIT.marker).write_bytes(content)
    read_flagged(out, STORE)
    check_output(out)


def verdict(folder: Path, content: bytes) -> None:
    """Read an audit whose table may hold anything."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    (out / "verdict.parquet").write_bytes(content)
    (out / AUDIT.marker).write_bytes(audited()[1])
    read_flagged(out, STORE)


def checkpoints(folder: Path, content: bytes) -> None:
    """Look for a checkpoint."""
    (folder / "epoch-0001.safetensors").write_bytes(content)
    Checkpoints(folder, {"lr": 0.1}).latest()


@cache
def saved() -> bytes:
    """A saved verdict."""
    verdict = noisefilter.judge(np.array([[0.9, 0.1], [0.2, 0.8]] * 3), LABELS)
    with tempfile.TemporaryDirectory() as folder:
        noisefilter.save(verdict, Path(folder) / "saved")
        return (Path(folder) / "saved").read_bytes()


def saved_file(folder: Path, content: bytes) -> None:
    """Load what was saved."""
    (folder / "saved").write_bytes(content)
    noisefilter.load(folder / "saved").keep(0.5)


CSV = b'u,c,label\n1.5,x,a\n,"y\n",b\n2,"z""",a\n-1,x,b\n'
DECISIONS = {
    "made_by": "noisefilter report", "format": 1, "fingerprint": STORE.fingerprint, "rows": 6,
    "description": "six rows",
    "decisions": [
        {"row": 0, "file": None, "given": "a", "action": "relabel", "label": "b"},
        {"row": 1, "file": None, "given": "b", "action": "remove", "label": None},
    ],
}  # fmt: skip
READERS: dict[str, tuple[Callable[[Path, bytes], None], Callable[[], Any]]] = {
    "text tables": (table, lambda: texts() | spoiled(CSV) | st.binary()),
    "parquet tables": (parquet_table, lambda: spoiled(parquet())),
    "npz archives": (npz, lambda: spoiled(
        zipped({"X.npy": npy(STORE.X), "y.npy": npy(LABELS)}, zipfile.ZIP_DEFLATED)
    ) | st.tuples(arrays(), arrays()).map(lambda two: zipped({"X.npy": two[0], "y.npy": two[1]}))),
    "embeddings": (embedding, lambda: spoiled(npy(STORE.X)) | arrays()),
    "images": (images, lambda: st.sampled_from(IMAGES).flatmap(lambda kind: spoiled(picture(kind)))),
    "decisions": (decisions, lambda: of_json(DECISIONS)),
    "truth, text": (truth_table, lambda: texts() | spoiled(b"row,label\n0,a\n1,b\n2,a\n3,b\n4,b\n5,a\n")),
    "truth, array": (truth_array, lambda: spoiled(npy(LABELS)) | arrays()),
    "audits, marker": (marker, lambda: of_json(json.loads(audited()[1]))),
    "audits, verdict": (verdict, lambda: spoiled(audited()[0])),
    "checkpoints": (checkpoints, lambda: spoiled(checkpoint())),
    "saved verdicts": (saved_file, lambda: spoiled(saved())),
}  # fmt: skip


def tried(name: str, examples: int, number: int = 0) -> Counter[str]:
    """Have a reader read so many files; return how often it gave a result, and how often which error."""
    read, files = READERS[name]
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:

        @seed(number)
        @settings(
            max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(files())
        def once(content: bytes) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read(Path(folder), content)
                except (NoiseFilterError, InputTypeError) as error:
                    assert "\n" not in str(error), error
                    counted[type(error).__name__] += 1
                else:
                    counted["result"] += 1

        once()
    return counted


# -- results ------------------------------------------------------------------------------------------


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def tables() -> str:
    """Render how many files were read and what came of them."""
    lines = ["| reader | files | a result | an error of the library |", "|---" * 4 + "|"]
    sums = np.zeros(3, dtype=int)
    for name in READERS:
        counts: Counter[str] = Counter()
        for record in done():
            if record["reader"] == name:
                counts.update(record["counts"])
        numbers = np.array([counts.total(), counts["result"], counts.total() - counts["result"]])
        sums += numbers
        lines.append(f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    lines.append("| all | " + " | ".join(f"{number:,}" for number in sums) + " |")
    return "\n".join(lines)


def sentence() -> str:
    """Say how many files were read."""
    files = sum(sum(record["counts"].values()) for record in done())
    return (
        f"{files:,} files were read by {len(READERS)} readers. Anything but a result or an error of the "
        "library would have ended the run. [What they were](benchmarks.md#files-of-any-kind)."
    )


def main() -> None:
    """Read files of every kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(tables())
        return
    for name in args.readers:
        start = time.perf_counter()
        counts = tried(name, args.examples, args.seed)
        seconds = time.perf_counter() - start
        print(f"{name}: {dict(counts)}, {seconds:.0f} seconds", flush=True)
        record = {"reader": name, "seed": args.seed, "counts": dict(counts), "seconds": seconds}
        with RESULTS.open("a") as file:
            file.write(json.dumps(record | machine()) + "\n")


if __name__ == "__main__":
    main()
