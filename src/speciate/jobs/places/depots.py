"""Opens a depot by its name in settings.toml, and a room by what a node was given: a path, or `s3://...`."""

from __future__ import annotations

from pathlib import Path

from speciate.jobs.places.bucket_depot import BucketDepot, BucketRoom, open_bucket
from speciate.jobs.places.depot import Depot, Room
from speciate.jobs.places.folder_depot import FolderDepot, FolderRoom
from speciate.settings import BUCKET, Place


def open_depot(place: Place, owner: str) -> Depot:
    if place.in_bucket:
        return BucketDepot(open_bucket(place.bucket_url), owner)
    return FolderDepot(Path(place.depot) / owner)


def open_room(where: str) -> Room:
    if where.startswith(BUCKET):
        url, _, inside = where.partition("#")
        return BucketRoom(open_bucket(url), inside)
    return FolderRoom(Path(where))


def depot_of(where: str) -> Depot:
    """The depot of the room that is opened by `where`."""
    if where.startswith(BUCKET):
        url, _, inside = where.partition("#")
        return BucketDepot(open_bucket(url), inside.partition("/")[0])
    return FolderDepot(Path(where).parent.parent)


def room_in(place: Place, inside: str) -> Room:
    """`inside`: the room's path below the depot."""
    return open_room(f"{place.bucket_url}#{inside}" if place.in_bucket else f"{place.depot}/{inside}")
