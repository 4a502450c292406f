"""The kinds of clusters, by their word in settings.toml."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from speciate.jobs.places.cluster import Cluster
from speciate.jobs.places.ray_jobs import RayJobs
from speciate.jobs.places.slurm import Slurm
from speciate.settings import Place

CLUSTERS: Mapping[str, Callable[[Place], Cluster]] = {"slurm": Slurm, "ray": RayJobs}


def open_cluster(place: Place) -> Cluster:
    return CLUSTERS[place.kind](place)
