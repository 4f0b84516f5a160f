"""How fast mixing is, beside what it could be at best and beside other libraries."""
