"""Measures how fast mixing is, compared with copies of the batch and with other libraries."""
