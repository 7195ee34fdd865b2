"""How fast the product is, beside what the servers and others do on the same machine: `make bench`."""
