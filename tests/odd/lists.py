"""Odd lists of URLs, and folders of embeddings."""

from odd.cases import Pairs, Queries

CASES: list[Pairs | Queries] = []
