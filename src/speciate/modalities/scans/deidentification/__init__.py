"""De-identification of DICOM files after PS3.15 Annex E: its table as data, pseudonyms, and the engine over both."""
