"""edgenet: from a reference classifier to a bundle that runs the same on every board."""

__version__ = "0.1.0"
