"""De-identification of DICOM files by PS3.15 Annex E: its table as data (profile.csv), and the code that applies it."""
