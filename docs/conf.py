"""Sphinx configuration: `tox -e docs` builds with warnings as errors."""

import lipservice

project = "LipService"
author = "The LipService authors"
copyright = "2026, The LipService authors"
release = version = lipservice.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
# No network while building: references to other projects stay plain text.
intersphinx_mapping: dict[str, tuple[str, None]] = {}
nitpick_ignore_regex = [("py:.*", r".*")]

html_theme = "furo"
html_title = "LipService"
