"""Load a graph; arrays in, arrays out. One runtime a module."""
