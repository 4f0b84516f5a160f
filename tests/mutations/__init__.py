"""Mutations: the package broken on purpose, one change at a time, and the tests that notice."""
