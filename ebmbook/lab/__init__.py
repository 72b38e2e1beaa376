"""Experiments of the chapters, as pure functions of seeds and sizes."""
