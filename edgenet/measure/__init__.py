"""Accuracy, agreement and what runs them over a data set."""
