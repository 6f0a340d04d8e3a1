"""The documentation site: `bash launch/docs.sh` builds it into build/docs, with warnings as errors."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaspec_jax  # noqa: E402

project = "adaspec_jax"
author = copyright = "the adaspec_jax authors"
version = release = adaspec_jax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinxcontrib.programoutput",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # blocks of commands with NAME=... are no valid shell

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
add_module_names = False
nitpicky = False

html_theme = "furo"
html_title = f"adaspec_jax {version}"
html_static_path: list[str] = []
exclude_patterns = ["build"]

# docs/commands.md shows what every command says of itself.
os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
os.environ.update(COLUMNS="100", NO_COLOR="1", PYTHON_COLORS="0")
