"""Odd tables that name images and captions."""

from odd.cases import Pairs, Queries

CASES: list[Pairs | Queries] = []
