"""Odd text files, YAML files and places."""

from odd.cases import Pairs, Queries

CASES: list[Pairs | Queries] = []
