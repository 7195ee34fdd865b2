"""One sans-I/O mapper per exchange: frame to records."""
