"""Records to Postgres in batches, and the read API over what is stored. Never changes a record."""
