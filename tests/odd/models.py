"""Odd models."""

from odd.cases import Pairs, Queries

CASES: list[Pairs | Queries] = []
