"""Data sets: pictures with labels, and calibration sets."""
