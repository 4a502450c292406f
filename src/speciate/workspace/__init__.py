"""One folder on disk: the catalog and its one writer, blobs and packs, locks, backups and repair.

May use: the modules beside it (errors, settings, ...). The daemon alone opens the catalog; workers use `Folders`.
"""
