"""Pure detectors over what production was asked and answered: arrays in, numbers out, no clock and no files."""
