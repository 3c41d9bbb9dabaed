"""The pipeline: each module here is one DVC stage; what they share, and what a person runs, is in `ownhand`."""

import ownhand  # noqa: F401 - its settings come before any library that a stage imports
