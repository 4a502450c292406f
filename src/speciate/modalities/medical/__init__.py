"""Medical images and signals: DICOM, NIfTI, waveforms, de-identification.

A file is checked against what its header declares before a library reads it.
"""
