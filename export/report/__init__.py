"""One self-contained page about a bundle: its parts and what they cost, how far it was proven, and what is in it."""
