"""Columns and cells of tables, as kubectl shows them."""
