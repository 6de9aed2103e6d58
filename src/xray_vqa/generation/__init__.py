"""Question-answer pairs about scans.

The plan decides what is asked and what is true, a provider words it, the journal keeps each reply, and the validator
derives every answer from the annotations once more.
"""
