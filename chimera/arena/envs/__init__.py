"""Environments: challenges that follow from their ids alone, and verdicts that anyone can compute again."""
