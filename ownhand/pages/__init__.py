"""Photographed pages: their lines are found, written as PAGE XML, and read."""
