"""One sans-I/O feed per exchange: what to subscribe, how to answer, what to poll."""
