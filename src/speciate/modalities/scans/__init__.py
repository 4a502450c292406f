"""Scans of bodies: DICOM, NIfTI, and what is drawn upon them."""
