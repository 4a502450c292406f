"""What can be said of a step before any row is read: whether columns and labels that it names are there."""

from __future__ import annotations

import json
import re
from typing import Any

import duckdb

from speciate.datasets.columns import FIXED
from speciate.datasets.look.sql_cage import VIEW, check, check_repeatable
from speciate.datasets.operations.contract import Others, refusal
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError, unknown

_NUMBER = re.compile(r"DOUBLE|FLOAT|REAL")
_TREE = "SELECT json_serialize_sql(?::VARCHAR)"
_OWN_NAMES = ("LAMBDA", "SUBQUERY")
"""Expressions that bring names of their own."""


def unchanged(parameters: Any, manifest: Manifest, others: Others) -> Manifest:
    """Of operations that only leave rows out, and refuse nothing beforehand."""
    return manifest


def check_column(manifest: Manifest, name: str) -> str:
    """NOT_FOUND with near names."""
    if name not in FIXED and name not in manifest.columns:
        raise unknown_column(manifest, name)
    return name


def unknown_column(manifest: Manifest, name: str) -> SpeciateError:
    known = {*FIXED, *manifest.columns}
    return unknown("column", name, known, f"Call describe_dataset(dataset={manifest.name!r}) for its columns.")


def is_number(manifest: Manifest, name: str) -> bool:
    """Whether the column holds numbers with fractions."""
    kind = ("DOUBLE" if manifest.numeric else "VARCHAR") if name == "label" else manifest.columns.get(name, "VARCHAR")
    return bool(_NUMBER.fullmatch(kind))


def check_classes(manifest: Manifest, what: str) -> None:
    """INVALID where there are no classes."""
    if manifest.label is None:
        raise refusal(
            f"{manifest.ref} has no labels, and {what} needs them.",
            "Call label_examples, or create_dataset with label.",
        )
    if manifest.numeric:
        raise refusal(f"The labels of {manifest.ref} are numbers, and {what} is about classes.")


def check_sql(manifest: Manifest, select: str) -> None:
    """INVALID for what is not one SELECT over `examples` or is not repeatable, NOT_FOUND for an unknown column.

    Only parses. A query that brings names of its own (subqueries, lambdas) is left to the run.
    """
    with duckdb.connect(":memory:") as connection:
        check(connection, select)
        check_repeatable(connection, select)
        tree = json.loads(connection.execute(_TREE, [select]).fetchall()[0][0])
    known = {name.lower() for name in (*FIXED, *manifest.columns, VIEW)}
    stack, named = [tree], []
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if node.get("class") in _OWN_NAMES or (isinstance(map_ := node.get("cte_map"), dict) and map_.get("map")):
                return
            if node.get("class") == "COLUMN_REF":
                named.append([str(part) for part in node.get("column_names", ())])
            stack.extend(node.values())
    for parts in named:
        if not any(part.lower() in known for part in parts):
            raise unknown_column(manifest, parts[-1])
