"""Shared feature extractors: one trunk feeds every head."""
