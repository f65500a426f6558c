"""The reference network: its layers, weights and cost."""
