"""Sphinx: ``python -m sphinx -W -n -b html docs docs/_build/html``. The build needs no network, nor do the pages."""

import sys
from pathlib import Path

from docutils.nodes import Element, SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator
from sphinx_gallery.sorting import ExplicitOrder

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import gpa_nd  # noqa: E402

project = "gpa_nd"
author = "The gpa_nd authors"
copyright = author
release = version = gpa_nd.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "cost_table",
]
exclude_patterns = ["_build", "drawings", "pictures"]
suppress_warnings = ["config.cache"]  # the gallery's settings hold a function

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

napoleon_use_rtype = False  # the type stands in the signature
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
maximum_signature_line_length = 88

# Kinds of data, and from one to another; how to judge and set it up; what else it can do. New pages come last.
GALLERY_ORDER = ExplicitOrder(
    [
        *("plot_first_look.py", "plot_copy_detail.py", "plot_audio.py", "plot_video.py", "plot_graph.py"),
        *("plot_between_domains.py", "plot_own_geometry.py"),
        *("plot_what_it_looks_at.py", "plot_kappa.py", "plot_levels.py"),
        *("plot_causal.py", "plot_masks.py", "plot_always_on.py", "plot_learned_selection.py", "plot_graph_batches.py"),
        "*",
    ]
)

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": "/plot_",
    "within_subsection_order": GALLERY_ORDER,
    "ignore_repr_types": r"torch\._C\.Generator",  # what manual_seed returns
    "download_all_examples": False,
    "show_memory": False,
    "abort_on_example_error": True,
}

html_theme = "furo"
html_title = "gpa_nd"
pygments_dark_style = "github-dark"  # furo's own underlines the names of modules
html_static_path = ["_static"]
html_css_files = ["extra.css"]
html_math_renderer = "mathml"

# There is no network while building, so that other projects' names cannot be looked up; 'm 2' is a jaxtyping shape.
nitpick_ignore_regex = [("py:.*", r"(abc|collections|jaxtyping|torch|torch_geometric)\..*|Tensor|'.*'")]


def mathml(latex: str, as_block: bool = False) -> str:
    """LaTeX to MathML, which browsers read without a script; primes and braces get the size that LaTeX gives them."""
    code = tex2mathml(latex, as_block=as_block).replace("<mo>'</mo>", '<mo lspace="0" rspace="0">\N{PRIME}</mo>')
    for brace in "{}":
        code = code.replace(f"<mo>{brace}</mo>", f'<mo stretchy="false">{brace}</mo>')
    return code


def visit_math(writer: HTML5Translator, node: Element) -> None:
    """A formula in a line of text."""
    writer.body.append(mathml(node.astext()))
    raise SkipNode


def visit_math_block(writer: HTML5Translator, node: Element) -> None:
    """A formula on a line of its own."""
    writer.body.append(f'<div class="math-block">{mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


def setup(app: Sphinx) -> None:
    """Add the renderer of formulas."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
