"""Accuracy, agreement, their statistics, and the comparison of what was measured."""
