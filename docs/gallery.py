"""How the gallery runs its examples, and in which order it shows them; `conf.py` names both."""

from pathlib import Path

from noisefilter import progress

EXAMPLES = (
    "cifar_audit.py",
    "table_audit.py",
    "embeddings.py",
    "features_pipeline.py",
    "open_set.py",
    "dividemix_inn_start.py",
    "plain_torch.py",
    "hugging_face.py",
)


class SimplestFirst:
    """The place of an example; one that has none here stops the build."""

    def __init__(self, src_dir):
        self.src_dir = src_dir

    def __call__(self, filename):
        name = Path(filename).name
        if name not in EXAMPLES:
            raise ValueError(f"docs/gallery.py must give every example its place, got none for {name}.")
        return EXAMPLES.index(name)


def quick(gallery_conf, script_vars):
    """Return the arguments of every example; those that have none do not look at them."""
    progress._QUIET_BELOW = float("inf")  # no bars on pages, which would show every state of them
    return ["--quick"]
