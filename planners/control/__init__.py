"""Closing the loop: observations in, actions out, planning again and again; `controller.py` is the entry."""
