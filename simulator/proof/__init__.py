"""The proof: what the truth log says was printed against what Postgres holds. It shares no code with what it checks."""
