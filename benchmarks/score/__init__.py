"""Batch scoring beside a bare forward loop, and beside what a user would write or take instead."""
