"""One protocol dialect per exchange."""
