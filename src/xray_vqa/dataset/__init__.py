"""Scans on disk: the one layout that every stage reads, and the ways into it."""
