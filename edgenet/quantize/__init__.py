"""From the reference to its INT8 form: calibration."""
