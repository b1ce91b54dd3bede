"""How the documentation is built: `sphinx-build -W docs docs/_build`; `-D plot_gallery=1` runs examples."""

import inspect
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))  # gallery.py, since Sphinx stores no functions

project = "noisefilter"
author = copyright = "the noisefilter developers"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = "noisefilter"
html_theme_options = {"secondary_sidebar_items": ["page-toc"], "show_prev_next": False}
html_show_sourcelink = False

# The public names are those of `__all__`, wherever they are defined.
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"  # numpydoc docstrings say more than the annotations
numpydoc_show_class_members = False
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # relative links of included files, right on the repository's pages

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"(?<!hugging_face)\.py$",  # it needs transformers, which nothing else here does
    "plot_gallery": "False",  # they train networks: minutes, not seconds
    "reset_argv": "gallery.quick",
    "within_subsection_order": "gallery.SimplestFirst",
    "notebook_extensions": set(),  # a notebook has no command line to read options from
    "download_all_examples": False,
    "show_memory": False,
}


def skip_inherited_from_elsewhere(app, what, name, member, skip, options):
    """Show only what the library defines: scikit-learn and skorch document their own methods."""
    member = getattr(member, "fget", member)
    if skip or inspect.isbuiltin(member) or inspect.ismethoddescriptor(member):
        return True
    return not (getattr(member, "__module__", None) or "noisefilter").startswith("noisefilter")


def setup(app):
    app.connect("autodoc-skip-member", skip_inherited_from_elsewhere)
