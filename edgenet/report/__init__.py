"""Results as text and as versioned JSON."""
