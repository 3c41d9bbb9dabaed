"""Correction: a page in the browser where a person transcribes lines that wait, and checks those that are there."""
