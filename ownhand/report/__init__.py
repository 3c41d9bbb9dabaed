"""The HTML report and the gallery for `dvc plots`."""
